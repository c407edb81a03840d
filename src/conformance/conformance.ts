import { checkProperty, type CheckOptions } from './check.js';
import { PROPERTIES } from './properties/index.js';
import { type Subject } from './subject.js';

/** What the suite needs of a test runner. */
export interface Runner {
  describe(name: string, body: () => void): void;
  test(name: string, body: () => Promise<void>): void;
  /** Reports a check that does not apply, with the reason. Default: a test by that name, which does nothing. */
  skip?(name: string, reason: string): void;
}

export interface ConformanceOptions extends CheckOptions {
  /** Which properties, by name. Default: all. */
  readonly only?: readonly string[];
}

/**
 * Registers the suite with a test runner: a test for each named property, run on many plans and, where the
 * subject is deterministic, as many schedules.
 *
 * What does not apply is decided by what the subject declares, and by nothing else. That is known
 * only once it was opened, so each test decides for itself: it throws {@link NotApplicable}, whose message is the
 * reason, for the runner to report as skipped.
 *
 * Errors: a test fails with the property, the seed and path that play it again, and who did what.
 */
export function conformance(runner: Runner, subject: Subject, options: ConformanceOptions = {}): void {
  runner.describe(`conformance of ${subject.name}`, () => {
    for (const property of PROPERTIES) {
      if (options.only && !options.only.includes(property.name)) continue;
      const title = property.part ? `${property.name}: ${property.part}` : property.name;
      runner.test(title, async () => {
        const report = await checkProperty(property, subject, options);
        if (report.outcome === 'failed') throw new Error(report.message);
        if (report.outcome === 'skipped') runner.skip?.(title, report.reason);
      });
    }
  });
}
