import { type PageRange } from './address.js';
import { type MemoryLayout } from './layout.js';
import { type PageStates } from './page-states.js';

/** A range cut at the borders of regions: a row of a batch lies inside one. */
export function perRegion(layout: MemoryLayout, { first, count }: PageRange): readonly PageRange[] {
  const ranges: PageRange[] = [];
  for (let at = first; at < first + count;) {
    const region = layout.regionOf(at);
    const end = Math.min(first + count, region.firstPage + region.pageCount);
    ranges.push({ first: at, count: end - at });
    at = end;
  }
  return ranges;
}

/** The runs of pages of a range that are missing or removed. What changes in between is seen. */
export function* missingRuns(states: PageStates, { first, count }: PageRange): Generator<PageRange> {
  const end = first + count;
  for (let at = states.nextMissing(first, end); at < end;) {
    const stop = states.nextPresent(at, end);
    const run = { first: at, count: stop - at };
    if (!states.any('poisoned', run) && !states.any('unmapped', run)) yield run;
    else
      for (let page = at; page < stop; page++)
        if (['missing', 'removed'].includes(states.stateOf(page))) yield { first: page, count: 1 };
    at = states.nextMissing(stop, end);
  }
}

/** Visits {@link missingRuns}, region by region. What a visit changes is seen by the next. */
export function eachMissing(
  layout: MemoryLayout,
  states: PageStates,
  pages: PageRange,
  visit: (pages: PageRange) => void,
): void {
  for (const part of perRegion(layout, pages)) for (const run of missingRuns(states, part)) visit(run);
}

/**
 * Visits the runs of present pages of a range, region by region. A visit sees what the one before it has
 * changed.
 */
export function eachPresent(
  layout: MemoryLayout,
  states: PageStates,
  { first, count }: PageRange,
  visit: (pages: PageRange) => void,
): void {
  for (let at = states.nextPresent(first, first + count); at < first + count;) {
    const region = layout.regionOf(at);
    const end = states.nextMissing(at, Math.min(first + count, region.firstPage + region.pageCount));
    visit({ first: at, count: end - at });
    at = states.nextPresent(end, first + count);
  }
}

/** Visits the runs of poisoned pages of a range, region by region. */
export function eachPoisoned(
  layout: MemoryLayout,
  states: PageStates,
  pages: PageRange,
  visit: (pages: PageRange) => void,
): void {
  if (!states.any('poisoned', pages)) return;
  for (const { first, count } of perRegion(layout, pages)) {
    const end = first + count;
    for (let at = first; at < end; at++) {
      let stop = at;
      while (stop < end && states.is('poisoned', stop)) stop++;
      if (stop > at) visit({ first: at, count: stop - at });
      at = stop;
    }
  }
}
