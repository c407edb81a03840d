import { type Access } from './accesses.js';

/** What catches an access to a page that is missing, as far as it was seen. */
export function mechanismOf({ operation, waited, exited, slipped }: Access): string {
  if (operation === 'look up') return 'memslot';
  const seen = [...(waited > 0 ? ['userfaultfd'] : []), ...(exited > 0 ? ['KVM exit'] : [])];
  if (slipped > 0) return seen.length === 0 ? 'none' : `${seen.join(' and ')}, not always`;
  return seen.join(' and ') || 'met no missing page';
}

/** A row of the census, as it is kept and printed. */
export interface CensusRow {
  readonly by: string;
  readonly site: string;
  readonly operation: string;
  readonly via: string;
  readonly count: number;
  readonly waited: number;
  readonly exited: number;
  readonly slipped: number;
  readonly mechanism: string;
}

const keyOf = ({ context, site, operation, via }: Access): string =>
  [context, site, operation, via].join(' ');

/** Sums what several runs showed; in order of context, site and operation. */
export function sumAccesses(all: readonly (readonly Access[])[]): Access[] {
  const sums = new Map<string, Access>();
  for (const access of all.flat()) {
    const key = keyOf(access);
    const sum = sums.get(key);
    if (sum === undefined) {
      sums.set(key, { ...access });
      continue;
    }
    for (const field of ['count', 'waited', 'exited', 'slipped', 'outside'] as const)
      sum[field] += access[field];
  }
  return [...sums.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, access]) => access);
}

export const rowOf = (access: Access): CensusRow => ({
  by: access.context,
  site: access.site,
  operation: access.operation,
  via: access.via,
  count: access.count,
  waited: access.waited,
  exited: access.exited,
  slipped: access.slipped,
  mechanism: mechanismOf(access),
});
