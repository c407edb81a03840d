import fc from 'fast-check';
import { type PageRange } from 'demand-paging';

/** What can be asked of a pager in a history, or done to its memory. */
export const COMMANDS = [
  'ensure',
  'prefetch',
  'discard-refetch',
  'discard-zero',
  'poison',
  'freeze',
  'thaw',
  'protect',
  'unprotect',
  'mark',
] as const;
export type CommandKind = (typeof COMMANDS)[number];

/** One step of a round. `choice` picks a site, or an access to kill, of those that there are by then. */
export type Step =
  | { readonly kind: CommandKind; readonly pages: PageRange }
  | {
      readonly kind: 'read' | 'write';
      readonly page: number;
      readonly rest: boolean;
      readonly choice: number;
    }
  | { readonly kind: 'kill'; readonly choice: number };

/**
 * How a history ends: the pager is closed with what is frozen and missing as it is, or its resolver dies
 * first.
 */
export type Ending = 'close-poison' | 'close-zero' | 'populate' | 'resolver-dies';

export interface History {
  readonly synchronous: boolean;
  readonly faultAroundPages: number;
  /**
   * The steps of a round are begun together; the next round begins when those have ended that do not wait for
   * a thaw.
   */
  readonly rounds: readonly (readonly Step[])[];
  readonly ending: Ending;
}

/** Few, so that steps meet; more than a window of fault-around. */
export const PAGES = 12;

/** Accesses are half of all steps: nothing else tells what a command did. */
const ACCESSES = COMMANDS.length;

export function anyHistory(
  commands: readonly CommandKind[],
  endings: readonly Ending[],
): fc.Arbitrary<History> {
  const pages = fc
    .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: 4 }))
    .map(([first, count]): PageRange => ({ first, count: Math.min(count, PAGES - first) }));
  const command = fc.record({ kind: fc.constantFrom(...commands), pages });
  const access = fc.record({
    kind: fc.constantFrom('read' as const, 'write' as const),
    page: fc.nat(PAGES - 1),
    rest: fc.boolean(),
    choice: fc.nat(1000),
  });
  const kill = fc.record({ kind: fc.constant('kill' as const), choice: fc.nat(1000) });
  const step: fc.Arbitrary<Step> = fc.oneof(
    { arbitrary: access, weight: ACCESSES },
    { arbitrary: command, weight: ACCESSES },
    { arbitrary: kill, weight: 1 },
  );
  const round = fc.array(step, { minLength: 1, maxLength: 5 });
  return fc.record({
    synchronous: fc.boolean(),
    faultAroundPages: fc.constantFrom(1, 1, 4),
    rounds: fc.array(round, { minLength: 10, maxLength: 40, size: 'max' }),
    ending: fc.constantFrom(...endings),
  });
}
