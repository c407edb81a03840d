import { writeFileSync } from 'node:fs';
import type { SerializedError } from 'vitest';
import type { Reporter, TestCase, TestModule, Vitest } from 'vitest/node';

/**
 * Lists every skipped test with its reason and ends with one line of counts. A skip must give its
 * reason (`context.skip(reason)`); one that does not is reported and counted as a failure, unless the
 * run was narrowed to some tests by name, which skips all others.
 */
export default class CountReporter implements Reporter {
  #narrowed = false;

  onInit(vitest: Vitest): void {
    this.#narrowed = vitest.config.testNamePattern !== undefined;
  }

  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const skipped = tests.filter((test) => test.result().state === 'skipped');
    const silent = this.#narrowed ? [] : skipped.filter((test) => reasonOf(test) === undefined);
    const pending = tests.filter((test) => test.result().state === 'pending');
    const counts = {
      passed: tests.filter((test) => test.result().state === 'passed').length,
      failed:
        tests.filter((test) => test.result().state === 'failed').length +
        brokenGroups(modules) +
        unhandled.length +
        pending.length +
        silent.length,
      skipped: skipped.length - silent.length,
    };
    if (!this.#narrowed) listSkipped(skipped);
    if (counts.failed > 0) process.exitCode = 1;
    const file = process.env['DEMAND_PAGING_COUNTS'];
    if (file) writeFileSync(file, JSON.stringify(counts));
    else print(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  }
}

/** Files and groups that broke outside of any test: an import, a `beforeAll`. */
function brokenGroups(modules: readonly TestModule[]): number {
  const broken = modules.filter((module) => module.errors().length > 0).length;
  const suites = modules.flatMap((module) => [...module.children.allSuites()]);
  return broken + suites.filter((suite) => suite.errors().length > 0).length;
}

function reasonOf(test: TestCase): string | undefined {
  const result = test.result();
  if (result.state !== 'skipped') return undefined;
  return result.note || (isInBrokenGroup(test) ? 'its group broke' : undefined);
}

function isInBrokenGroup(test: TestCase): boolean {
  let parent = test.parent;
  while (parent.type === 'suite') {
    if (parent.errors().length > 0) return true;
    parent = parent.parent;
  }
  return parent.errors().length > 0;
}

/** One line a test, tests of the same reason together. */
function listSkipped(skipped: readonly TestCase[]): void {
  if (skipped.length === 0) return;
  const byReason = new Map<string, TestCase[]>();
  for (const test of skipped) {
    const reason = reasonOf(test) ?? 'NO REASON GIVEN, counted as failed';
    byReason.set(reason, [...(byReason.get(reason) ?? []), test]);
  }
  print('Skipped:');
  for (const [reason, tests] of byReason) {
    print(`  ${reason}`);
    for (const test of tests) print(`    ${test.module.relativeModuleId} > ${test.fullName}`);
  }
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
