import { type PageRange } from './address.js';
import { DemandPagingError } from './error.js';
import { type ContentsChoice, type Region } from './layout.js';
import { type PageStates } from './page-states.js';

/**
 * Compares what a region's memory was found to have with what the states say. `found`: runs of the region's
 * pages, in ascending order, none touching the next. Pages that nobody spoke of are settled as `choice` says:
 * refused, marked present, or returned, to be discarded. Poisoned and unmapped pages are left as they are.
 *
 * Precondition: no resolver runs. Errors: NOT_EMPTY; PAGE_VANISHED where a page that should be present is not
 * there: its contents are lost, and neither zeros nor the source's would be right.
 */
export function settleContents(
  region: Region,
  found: readonly PageRange[],
  states: PageStates,
  choice: ContentsChoice = region.contents ?? 'refuse',
): readonly PageRange[] {
  refuseVanished(region, found, states);
  const unspoken = found.flatMap((run) => [...missingRuns(states, run)]);
  if (unspoken.length === 0 || choice === 'discard') return unspoken;
  if (choice === 'keep') for (const run of unspoken) states.setPresent(run, true);
  else throw notEmpty(region, unspoken);
  return [];
}

/** Where pages of a region are; it may not be part of a layout yet. */
function rangeOf({ gpa, firstPage, pageSize }: Region, pages: PageRange): { start: bigint; length: bigint } {
  const size = BigInt(pageSize);
  return { start: gpa + BigInt(pages.first - firstPage) * size, length: BigInt(pages.count) * size };
}

function notEmpty(region: Region, unspoken: readonly PageRange[]): DemandPagingError {
  const pages = unspoken.reduce((sum, { count }) => sum + count, 0);
  const range = rangeOf(region, unspoken[0]!);
  const first = `0x${range.start.toString(16)}`;
  return new DemandPagingError('NOT_EMPTY', `the memory has ${pages} pages already, from ${first} on`, {
    range,
    hint: "Accesses would find what they hold: say with the option `states` which are present, or give the region contents: 'discard' or 'keep'",
  });
}

/** NOT_SUPPORTED of memory that maps a file privately: its pages are the file's, which others may use. */
export function cannotDiscard({ gpa, length }: Region): DemandPagingError {
  return new DemandPagingError(
    'NOT_SUPPORTED',
    'memory that maps a file privately cannot be emptied: what the file has shows through it',
    {
      range: { start: gpa, length },
      hint: "Map other memory, or say with contents: 'keep' that what is there is right",
    },
  );
}

function refuseVanished(region: Region, found: readonly PageRange[], states: PageStates): void {
  const { firstPage, pageCount } = region;
  let at = firstPage;
  for (const { first, count } of [...found, { first: firstPage + pageCount, count: 0 }]) {
    const page = states.nextPresent(at, first);
    if (page < first) {
      const range = rangeOf(region, { first: page, count: 1 });
      throw new DemandPagingError('PAGE_VANISHED', 'a page that the states say is present is not in memory', {
        range,
        hint: 'Say of a page that was discarded that it is removed; leave out what the source should bring',
      });
    }
    at = first + count;
  }
}

/** The runs of a range that the states know nothing of. */
function* missingRuns(states: PageStates, { first, count }: PageRange): Generator<PageRange> {
  const end = first + count;
  for (let at = states.nextMissing(first, end); at < end;) {
    const stop = states.nextPresent(at, end);
    const run = { first: at, count: stop - at };
    if (!states.any('poisoned', run) && !states.any('unmapped', run)) yield run;
    else
      for (let page = at; page < stop; page++)
        if (!states.is('poisoned', page) && !states.is('unmapped', page)) yield { first: page, count: 1 };
    at = states.nextMissing(stop, end);
  }
}
