import { type Arbitrary } from 'fast-check';
import { type AccessSite, type Coverage, type PagerPolicy, type Supports } from '../api/index.js';
import { type Body, type Environment } from './environment.js';

/** The properties of this suite, by name. */
export const PROPERTY_NAMES = [
  'install-once',
  'duplicate-wakes',
  'no-lost-wake',
  'no-zero-leak',
  'no-torn-page',
  'publish-before-present',
  'removed-reads-zero',
  'remove-before-fault',
  'prefetch-never-resurrects',
  'again-makes-progress',
  'close-is-definite',
  'coverage-is-true',
  'unsupported-changes-nothing',
  'bad-input-refused',
  'source-failure-is-loud',
  'handler-death-is-seen',
  'bounded-in-flight',
  'poison-is-sticky',
  'write-protect-is-atomic',
  'freeze-is-reversible',
  'kernel-access-blocks',
  'kernel-access-errors-then-retries',
  'exit-while-blocked-terminates',
  'views-die-safely',
] as const;

export type PropertyName = (typeof PROPERTY_NAMES)[number];

/** What a subject declares, and what can be done with it: all that decides whether a property applies. */
export interface Manifest {
  readonly supports: Supports;
  readonly coverage: Coverage;
  /** Sites that can be exercised. */
  readonly sites: readonly AccessSite[];
  /** Those that can be made to read only. */
  readonly readOnly: readonly AccessSite[];
  /** Whether the schedule is chosen. */
  readonly deterministic: boolean;
  /** Whether another thread can drop pages. */
  readonly discards: boolean;
  /** Sites whose accessor can be killed while it waits. */
  readonly killable: readonly AccessSite[];
  /** Sites where an access that fails says so; elsewhere it ends the process. */
  readonly mayFail: readonly AccessSite[];
  /** Whether the attachment has memory that can be read from here. */
  readonly local: boolean;
}

/** A named property: for every plan and every schedule, the body ends without a failure. */
export interface Property<Plan> {
  readonly name: PropertyName;
  /** Which part of it, where it is checked in several. */
  readonly part?: string;
  /** What holds, in one sentence. */
  readonly claim: string;
  /** `port`: the body is the resolver. `pager`: the library's engine is. */
  readonly level: 'port' | 'pager';
  readonly pages: number;
  /**
   * What it is about: the `backend` as a whole; or accesses of each site, `reads` or any. One about
   * accesses can be checked site by site, by giving the subject that site alone.
   */
  readonly about: 'backend' | 'reads' | 'accesses';
  /** The sites that it is about, where those are not all. */
  readonly at?: readonly AccessSite[];
  /** Whether a wait that never ends is this property's own failure, also where the suite tells faults apart. */
  readonly coversWaking?: boolean;
  /** Why it does not apply to a subject that declares this; undefined where it does. */
  unless(manifest: Manifest): string | undefined;
  plan(manifest: Manifest): Arbitrary<Plan>;
  /** Bounds and choices that the property insists on, over the generated ones. */
  policy?(plan: Plan): Partial<PagerPolicy>;
  /** Whether the source answers at once; default: as generated. */
  synchronous?(plan: Plan): boolean;
  /** Whether, where threads are real, the resolver's thread is to end at its first read. */
  readonly fatalSource?: boolean;
  body(environment: Environment, plan: Plan, manifest: Manifest): Body;
}

/** A property whose plan is its own affair. */
export type AnyProperty = Property<never>;

export const property = <Plan>(definition: Property<Plan>): AnyProperty =>
  definition as unknown as AnyProperty;
