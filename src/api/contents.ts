import { type PageRange } from './address.js';
import { DemandPagingError } from './error.js';
import { type ContentsChoice, type Region } from './layout.js';
import { missingRuns } from './page-runs.js';
import { type PageStates } from './page-states.js';

/**
 * Compares what a region's memory was found to have with what the states say. `found`: runs of the region's
 * pages, in ascending order, none touching the next. Pages of which the states say nothing are settled as
 * `choice` says: refused, marked present, or returned, to be discarded. Poisoned and unmapped pages are left
 * as they are.
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

/** Memory of this process that was looked at. */
interface Found {
  /** The runs of bytes of whole pages that have something, from the beginning of the memory. */
  runs(): readonly { readonly start: number; readonly length: number }[];
  /** Whether it maps a file privately: its pages are the file's, which others may use. */
  readonly showsFile: boolean;
}

/**
 * As {@link settleContents}, of what was found in memory. Errors: NOT_SUPPORTED, too, where it cannot be
 * discarded.
 */
export function settleFound(
  region: Region,
  found: Found,
  states: PageStates,
  choice: ContentsChoice | undefined,
): readonly PageRange[] {
  const { firstPage, pageSize } = region;
  const runs = found
    .runs()
    .map(({ start, length }) => ({ first: firstPage + start / pageSize, count: length / pageSize }));
  const discards = settleContents(region, runs, states, choice);
  if (found.showsFile && discards.length > 0) throw cannotDiscard(region);
  return discards;
}

function cannotDiscard({ gpa, length }: Region): DemandPagingError {
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
