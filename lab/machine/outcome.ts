import { type RecordLine } from './record.js';

export interface TestResult {
  readonly name: string;
  readonly status: 'passed' | 'failed' | 'skipped';
  readonly ms: number;
  readonly reason?: string | undefined;
}

export interface SuiteResult {
  readonly tests: TestResult[];
  readonly measurements: Record<string, unknown>;
  /** Seconds that it took in the machine. */
  seconds: number;
}

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** Why a suite that ended with a status that its tests do not explain counts as failed. */
function endOf(status: number, limit: number): string {
  if (status === 137) return `killed: it took longer than ${limit} s, or memory ran out`;
  return status > 128 ? `node ended by signal ${status - 128}` : `node ended with status ${status}`;
}

/** What happened inside, put together from the lines as they come. */
export class Outcome {
  readonly suites: Record<string, SuiteResult> = {};
  readonly files: Array<{ readonly name: string; readonly text: string }> = [];
  release: string | undefined;
  version: string | undefined;
  /** Seconds from the kernel's start to the first suite. */
  bootSeconds: number | undefined;
  finished = false;
  damaged = 0;
  /** The suite under way. */
  running: string | undefined;
  readonly #limit: number;
  readonly #begun = new Map<string, number>();

  constructor(suiteLimit: number) {
    this.#limit = suiteLimit;
  }

  take(line: RecordLine | undefined): void {
    if (line === undefined) {
      this.damaged += 1;
      return;
    }
    switch (line.kind) {
      case 'start':
        this.release = line.release;
        this.version = line.version;
        this.bootSeconds = line.uptime;
        return;
      case 'suite':
        this.running = line.suite;
        this.#begun.set(line.suite, line.uptime);
        this.#suite(line.suite);
        return;
      case 'test': {
        const { name, status, ms, reason } = line;
        this.#suite(line.suite).tests.push({ name, status, ms, ...(reason === undefined ? {} : { reason }) });
        return;
      }
      case 'measurement':
        this.#suite(line.suite).measurements[line.name] = line.value;
        return;
      case 'file':
        this.files.push({ name: line.name, text: line.text });
        return;
      case 'suite-end':
        this.running = undefined;
        this.#suite(line.suite).seconds = round(line.uptime - (this.#begun.get(line.suite) ?? line.uptime));
        this.#judge(line.suite, line.status);
        return;
      case 'end':
        this.finished = true;
    }
  }

  /**
   * The lines of a suite's tests and of its end come on two ports, in no order: what it says is judged last.
   */
  #judge(suite: string, status: number): void {
    this.#endings.push({ suite, status });
  }

  readonly #endings: Array<{ suite: string; status: number }> = [];

  /** To be called when nothing more comes. `unplanned`: what the machine was to run. */
  close(plan: readonly string[]): void {
    for (const { suite, status } of this.#endings) {
      const { tests } = this.#suite(suite);
      const silent = tests.filter((test) => test.status === 'skipped' && test.reason === undefined);
      if (silent.length > 0)
        tests.push(
          failure('skips', `skipped without a reason: ${silent.map(({ name }) => name).join(', ')}`),
        );
      const failed = tests.some((test) => test.status === 'failed');
      if (status !== 0 && !failed) tests.push(failure('the suite', endOf(status, this.#limit)));
      else if (tests.length === 0) tests.push(failure('the suite', 'it ran no test'));
    }
    const ended = new Set(this.#endings.map(({ suite }) => suite));
    for (const suite of plan)
      if (!ended.has(suite))
        this.#suite(suite).tests.push(failure('the suite', 'the machine ended before it did'));
  }

  counts(): Counts {
    const counts = { passed: 0, failed: 0, skipped: 0 };
    for (const { tests } of Object.values(this.suites)) for (const { status } of tests) counts[status] += 1;
    return counts;
  }

  #suite(name: string): SuiteResult {
    return (this.suites[name] ??= { tests: [], measurements: {}, seconds: 0 });
  }
}

const failure = (name: string, reason: string): TestResult => ({ name, status: 'failed', ms: 0, reason });

const round = (seconds: number): number => Math.round(seconds * 100) / 100;
