// @ts-check
// A reporter for vitest that writes one JSON line for each test, as lab/guest/reporter.mjs does for
// node:test.
import { appendFileSync } from 'node:fs';

const STATUS = /** @type {const} */ ({ passed: 'passed', failed: 'failed', skipped: 'skipped' });

export default class LabReporter {
  /** @param {any} test a vitest TestCase */
  onTestCaseResult(test) {
    const result = test.result();
    const status = STATUS[/** @type {keyof typeof STATUS} */ (result.state)] ?? 'failed';
    this.#tell(
      `${test.module.relativeModuleId} > ${test.fullName}`,
      status,
      Math.round(test.diagnostic()?.duration ?? 0),
      status === 'skipped' ? result.note : result.errors?.[0]?.message,
    );
  }

  /** @param {readonly any[]} modules @param {readonly any[]} unhandled */
  onTestRunEnd(modules, unhandled) {
    for (const module of modules)
      for (const error of module.errors()) this.#tell(module.relativeModuleId, 'failed', 0, error.message);
    for (const error of unhandled) this.#tell('outside of any test', 'failed', 0, error.message);
  }

  /** @param {string} name @param {string} status @param {number} ms @param {string | undefined} reason */
  #tell(name, status, ms, reason) {
    const line = {
      kind: 'test',
      suite: process.env['LAB_SUITE'],
      name,
      status,
      ms,
      reason: reason?.slice(0, 4000),
    };
    appendFileSync(/** @type {string} */ (process.env['LAB_TESTS']), `${JSON.stringify(line)}\n`);
  }
}
