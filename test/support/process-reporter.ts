import { type ChildProcess } from 'node:child_process';
import diagnostics from 'node:diagnostics_channel';
import type { Reporter, TestCase } from 'vitest/node';

/**
 * Says by which signal a process of tests was ended, and which tests it had begun: vitest itself says no more than that
 * it exited. One that vitest ends is no matter.
 */
export default class ProcessReporter implements Reporter {
  /** What is known of a process's tests comes in batches: the last that began may be missing. */
  readonly #begun = new Set<string>();

  onInit(): void {
    diagnostics.subscribe('child_process', (message) => {
      const { process: started } = message as { readonly process: ChildProcess };
      started.once('exit', (code, signal) => {
        if (started.killed || (code === 0 && signal === null)) return;
        const how = signal ?? `status ${code}`;
        process.stderr.write(`process ${started.pid} ended by ${how}; under way: ${this.#underWay()}\n`);
      });
    });
  }

  onTestCaseReady(test: TestCase): void {
    this.#begun.add(nameOf(test));
  }

  onTestCaseResult(test: TestCase): void {
    this.#begun.delete(nameOf(test));
  }

  #underWay(): string {
    return this.#begun.size === 0 ? 'no test' : [...this.#begun].join(', ');
  }
}

const nameOf = (test: TestCase): string => `${test.module.relativeModuleId} > ${test.fullName}`;
