import { hex } from '../../api/address.js';
import { settleContents } from '../../api/contents.js';
import { DemandPagingError } from '../../api/error.js';
import { hasPageCache, type Region } from '../../api/layout.js';
import { type PageStates } from '../../api/page-states.js';
import { checkPlaces, mappedRuns } from '../../linux/index.js';

export interface ForeignContentsOptions {
  readonly regions: readonly Region[];
  /** Regions that are served already. */
  readonly others: readonly Region[];
  readonly states: PageStates;
  readonly pid: number | undefined;
}

/**
 * What the memory of another process holds is that process's affair, and comes to light page by page, unless
 * the region says that it is to be looked at. Of shared memory its page tables do not say what is missing.
 * Two regions that have the same place of a file are refused, where that can be seen (/proc/PID/maps).
 * Errors: BAD_RANGE, NOT_EMPTY, PAGE_VANISHED; NOT_SUPPORTED, NO_PERMISSION, MEMORY_GONE where it cannot be
 * looked at.
 */
export function settleForeign({ regions, others, states, pid }: ForeignContentsOptions): void {
  const all = [...others, ...regions].filter(({ hva }) => hva !== undefined);
  if (pid !== undefined && all.length > 1 && all.some(({ memory }) => hasPageCache(memory)))
    checkPlaces(
      all.map(({ gpa, length, memory, hva }) => ({
        range: { start: gpa, length },
        memory,
        address: Number(hva),
      })),
      pid,
    );
  for (const region of regions) settleRegion(region, states, pid);
}

function settleRegion(region: Region, states: PageStates, pid: number | undefined): void {
  const { contents, memory, firstPage, pageSize, length } = region;
  if (contents === undefined) return;
  const refuse = (message: string, hint: string): never => {
    throw new DemandPagingError('NOT_SUPPORTED', `the region at ${hex(region.gpa)}: ${message}`, { hint });
  };
  if (contents === 'discard')
    refuse('the memory of another process cannot be discarded from here', 'Have that process do it');
  if (memory === 'shmem') refuse('what shared memory has cannot be told from here', 'Leave `contents` out');
  if (pid === undefined) return refuse('nothing says whose memory it is', 'Give adopt() the `pid`');
  const found = mappedRuns(pid, Number(region.hva), Number(length)).map((run) => ({
    first: firstPage + Math.floor(run.start / pageSize),
    count: Math.ceil(run.length / pageSize),
  }));
  settleContents(region, found, states);
}
