import { type CensusRow } from './table.js';

export interface CensusDifference {
  /** Sites that the second kernel no longer has, and those that are new in it. */
  readonly gone: readonly CensusRow[];
  readonly fresh: readonly CensusRow[];
  /** Sites that another mechanism catches than before. */
  readonly otherwise: ReadonlyArray<
    Pick<CensusRow, 'by' | 'site' | 'operation'> & { readonly before: string; readonly now: string }
  >;
}

/**
 * A site is the same if it comes from the same place and does the same; by which function it does so may
 * differ.
 */
const keyOf = ({ by, site, operation }: CensusRow): string => [by, site, operation].join(' ');

/** What one kernel does otherwise than an older one. */
export function differenceOf(older: readonly CensusRow[], newer: readonly CensusRow[]): CensusDifference {
  const before = new Map(older.map((row) => [keyOf(row), row]));
  const now = new Map(newer.map((row) => [keyOf(row), row]));
  return {
    gone: [...before].filter(([key]) => !now.has(key)).map(([, row]) => row),
    fresh: [...now].filter(([key]) => !before.has(key)).map(([, row]) => row),
    otherwise: [...now].flatMap(([key, { by, site, operation, mechanism }]) => {
      const was = before.get(key)?.mechanism;
      if (was === undefined || was === mechanism) return [];
      return [{ by, site, operation, before: was, now: mechanism }];
    }),
  };
}

/** The same as rows of a table. */
export function differenceRows({
  gone,
  fresh,
  otherwise,
}: CensusDifference): Readonly<Record<string, string>>[] {
  const row = (what: string, { by, site, operation, via, mechanism }: CensusRow): Record<string, string> => ({
    by,
    site,
    operation,
    what,
    via,
    mechanism,
  });
  return [
    ...fresh.map((each) => row('new', each)),
    ...gone.map((each) => row('no longer', each)),
    ...otherwise.map(({ by, site, operation, before, now }) => ({
      by,
      site,
      operation,
      what: 'caught otherwise',
      via: '',
      mechanism: `${now}; before: ${before}`,
    })),
  ];
}
