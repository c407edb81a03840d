import { checkProperty, type CheckOptions } from './check.js';
import { openManifest } from './manifest.js';
import { PROPERTIES } from './properties/index.js';
import { type AnyProperty, type PropertyName } from './property.js';
import { failsText } from './result.js';
import { type Subject } from './subject.js';

/** What the suite needs of a test runner. */
export interface Runner {
  describe(name: string, body: () => void): void;
  /**
   * Registers a test. `body` is handed a function that reports the test as skipped, with the reason; whether that
   * function returns or throws is the runner's affair.
   */
  test(name: string, body: (skip: (reason: string) => void) => Promise<void>): void;
}

export interface ConformanceOptions extends CheckOptions {
  /** Titles of properties to leave out, as {@link titleOf} gives them. Default: none. */
  readonly except?: readonly string[];
}

/** A property's name, with its part where it has several. */
export const titleOf = ({
  name,
  part,
}: {
  readonly name: PropertyName;
  readonly part?: string | undefined;
}): string => (part ? `${name}, ${part}` : name);

/**
 * Registers the suite with a test runner: a test for each named property, run on many plans and, where the
 * subject is deterministic, as many schedules.
 *
 * What does not apply is decided by what the subject declares and by nothing else; such a test is
 * reported as skipped, with the reason. {@link inapplicable} lists them beforehand.
 *
 * Blocks: nothing; a test lasts as long as its runs. Errors: a test fails with the property, the seed and path that
 * repeat it, and a trace.
 */
export function conformance(runner: Runner, subject: Subject, options: ConformanceOptions = {}): void {
  const { except = [], ...checking } = options;
  runner.describe(`conformance of ${subject.name}`, () => {
    for (const property of PROPERTIES) {
      const title = titleOf(property);
      if (except.includes(title)) continue;
      runner.test(title, async (skip) => {
        const result = await checkProperty(property, subject, checking);
        if (result.outcome === 'fails')
          throw new Error(`${title} does not hold on ${subject.name}: ${result.claim}\n${failsText(result)}`);
        if (result.outcome === 'not-applicable') skip(result.reason);
      });
    }
  });
}

/** The properties that do not apply to a subject, and why, by title. */
export async function inapplicable(
  subject: Subject,
  properties: readonly AnyProperty[] = PROPERTIES,
): Promise<ReadonlyMap<string, string>> {
  const manifest = await openManifest(subject);
  const reasons = properties.map((property) => [titleOf(property), property.unless(manifest)] as const);
  return new Map(reasons.filter((entry): entry is readonly [string, string] => entry[1] !== undefined));
}
