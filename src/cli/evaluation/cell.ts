import { type AccessSite, SITE_NAMES } from '../../api/index.js';
import { type AnyProperty, canRead, PROPERTIES, type Result, titleOf } from '../../conformance/index.js';
import { HAZARDS } from '../../prototypes/index.js';

/** A property at an access site; without a site the property is about the backend as a whole. */
export interface Cell {
  /** As {@link titleOf} gives it. */
  readonly property: string;
  readonly site: AccessSite | undefined;
}

/** Of a failure on a real kernel: a C program that shows it by itself, or why there is none. */
export type Reproducer = { readonly program: string } | { readonly why: string };

/** What came of a cell. Plain data. */
export type CellResult = Cell & Result & { readonly reproducer?: Reproducer };

/** Sites with a column of their own; a visibility check reads nothing. */
export const COLUMNS: readonly AccessSite[] = SITE_NAMES.filter((site) => site !== 'kernel-visibility');

/** Everything that is evaluated, in the order in which it is reported. */
export const ALL_PROPERTIES: readonly AnyProperty[] = [...PROPERTIES, ...HAZARDS];

export const propertyOf = (title: string): AnyProperty | undefined =>
  ALL_PROPERTIES.find((property) => titleOf(property) === title);

/** Whether a property has something to say about a site. */
function concerns({ about, at }: AnyProperty, site: AccessSite): boolean {
  return (at?.includes(site) ?? true) && (about === 'accesses' || canRead(site));
}

/** The cells of properties: one for the backend as a whole, or one a site that the property is about. */
export function cellsOf(properties: readonly AnyProperty[] = ALL_PROPERTIES): readonly Cell[] {
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
