import { type AccessSite, SITE_NAMES } from '../../api/index.js';
import { type AnyProperty, canRead, PROPERTIES, titleOf } from '../../conformance/index.js';
import { HAZARDS } from '../../prototypes/index.js';

/** A property at an access site; without a site the property is about the backend as a whole. */
export interface Cell {
  /** As {@link titleOf} gives it. */
  readonly property: string;
  readonly site: AccessSite | undefined;
}

/** What came of a cell. Plain data. */
export type CellVerdict =
  | { readonly verdict: 'holds'; readonly runs: number }
  | {
      readonly verdict: 'fails';
      /** What was seen, and what should have been. */
      readonly what: string;
      /** Who did what, in order, one event a line: the smallest counterexample that was found. */
      readonly story: readonly string[];
      readonly runs: number;
      /** Play it again with these; absent where it never came to an end, or was not begun. */
      readonly seed?: number;
      readonly path?: string;
      /** What the counterexample's run was made of. */
      readonly plan?: string;
      readonly setting?: string;
      /** On a real kernel: a C program that shows it by itself, where what failed is to be seen at the kernel. */
      readonly reproducer?: string;
      /** On a real kernel: why there is no such program. */
      readonly noReproducer?: string;
    }
  /** An access at this site is not stopped; `story` shows one, where it can be made here. */
  | { readonly verdict: 'unmediated'; readonly what: string; readonly story: readonly string[] }
  | { readonly verdict: 'not-applicable'; readonly reason: string };

/** The reason of cells whose accessor does not exist on this host. */
export const OUT_OF_REACH = 'an access from there cannot be made here';

export const isOutOfReach = (result: CellVerdict): boolean =>
  result.verdict === 'not-applicable' && result.reason === OUT_OF_REACH;

export interface JudgedCell extends Cell {
  readonly result: CellVerdict;
}

/** Sites with a column of their own; a visibility check reads nothing. */
export const COLUMNS: readonly AccessSite[] = SITE_NAMES.filter((site) => site !== 'kernel-visibility');

/** Everything that is judged, in the order in which it is reported. */
export const JUDGED: readonly AnyProperty[] = [...PROPERTIES, ...HAZARDS];

export const propertyOf = (title: string): AnyProperty | undefined =>
  JUDGED.find((property) => titleOf(property) === title);

/** Whether a property has something to say about a site. */
function concerns({ about, at }: AnyProperty, site: AccessSite): boolean {
  return (at?.includes(site) ?? true) && (about === 'accesses' || canRead(site));
}

/** The cells of properties: one for the backend as a whole, or one a site that the property is about. */
export function cellsOf(properties: readonly AnyProperty[] = JUDGED): readonly Cell[] {
  return properties.flatMap((property): Cell[] =>
    property.about === 'backend'
      ? [{ property: titleOf(property), site: undefined }]
      : COLUMNS.filter((site) => concerns(property, site)).map((site) => ({
          property: titleOf(property),
          site,
        })),
  );
}

/** In a few words: `no-zero-leak at kernel-copy`. */
export const cellName = ({ property, site }: Cell): string => (site ? `${property} at ${site}` : property);
