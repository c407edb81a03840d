import { type ChildProcess } from 'node:child_process';
import diagnostics from 'node:diagnostics_channel';
import type { Reporter, TestCase, TestModule } from 'vitest/node';

/**
 * No test takes that long: its own time-out comes first, unless a system call holds the thread that would see
 * to it.
 */
const MINUTES = process.env['DEMAND_PAGING_LONG'] === '1' ? 70 : 15;
const STILL_MS = Number(process.env['DEMAND_PAGING_STILL_MS'] ?? MINUTES * 60_000);

/**
 * Says by which signal a process of tests was ended, and which tests it had begun: vitest itself says no more
 * than that it exited. One that vitest ends is no matter. Where nothing at all happens for {@link STILL_MS},
 * says what is under way and ends the processes, so that a run fails and does not stand for ever.
 */
export default class ProcessReporter implements Reporter {
  /** What is known of a process's tests comes in batches: the last that began may be missing. */
  readonly #begun = new Set<string>();
  readonly #modules = new Set<string>();
  readonly #running = new Set<ChildProcess>();
  #watch: NodeJS.Timeout | undefined;

  onInit(): void {
    diagnostics.subscribe('child_process', (message) => {
      const { process: started } = message as { readonly process: ChildProcess };
      this.#running.add(started);
      started.once('exit', (code, signal) => {
        this.#running.delete(started);
        if (started.killed || (code === 0 && signal === null)) return;
        const how = signal ?? `status ${code}`;
        process.stderr.write(`process ${started.pid} ended by ${how}; under way: ${this.#underWay()}\n`);
      });
    });
  }

  onTestRunStart(): void {
    this.#watch = setTimeout(() => this.#endAll(), STILL_MS);
  }

  onTestModuleStart(module: TestModule): void {
    this.#modules.add(module.relativeModuleId);
    this.#watch?.refresh();
  }

  onTestModuleEnd(module: TestModule): void {
    this.#modules.delete(module.relativeModuleId);
    this.#watch?.refresh();
  }

  onTestCaseReady(test: TestCase): void {
    this.#begun.add(nameOf(test));
    this.#watch?.refresh();
  }

  onTestCaseResult(test: TestCase): void {
    this.#begun.delete(nameOf(test));
    this.#watch?.refresh();
  }

  onTestRunEnd(): void {
    clearTimeout(this.#watch);
  }

  #endAll(): void {
    const stood = `nothing happened for ${Math.round(STILL_MS / 1000)} s`;
    process.stderr.write(`${stood}; under way: ${this.#underWay()}; the processes of tests are ended\n`);
    for (const { pid } of this.#running) if (pid !== undefined) process.kill(pid, 'SIGKILL');
    this.#watch?.refresh();
  }

  #underWay(): string {
    const all = this.#begun.size > 0 ? this.#begun : this.#modules;
    return all.size === 0 ? 'no test' : [...all].join(', ');
  }
}

const nameOf = (test: TestCase): string => `${test.module.relativeModuleId} > ${test.fullName}`;
