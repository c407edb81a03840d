import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type Interface, createInterface } from 'node:readline';
import { CannotMeasure } from './failure.js';
import { type NativePrograms } from './native.js';
import { type FaultRun, type Memory, type Measured, type Place, rateOf } from './run.js';

interface Answer {
  readonly pages: number;
  readonly took_ns: number;
  readonly sum: string;
}

/** The C handler: one process for all its runs, idle in between. */
export class CHandler implements AsyncDisposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(programs: NativePrograms, memory: Memory) {
    const { pages, pageSize, seed } = memory;
    this.#child = spawn(programs.handler, [pages, pageSize, seed].map(String), { stdio: 'pipe' });
    this.#reader = createInterface({ input: this.#child.stdout });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  faults({ wait, order, seed, place }: FaultRun): Promise<Measured> {
    const cpus = `${place.handler} ${place.toucher}`;
    return this.#ask(`${wait} ${order === 'random' ? 'random' : 'ascending'} ${seed} ${cpus}`);
  }

  /** Copies everything, `pieceBytes` in one UFFDIO_COPY. */
  bulk(pieceBytes: number, place: Place): Promise<Measured> {
    return this.#ask(`bulk ${pieceBytes} ${place.handler}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit');
    this.#reader.close();
  }

  async #ask(command: string): Promise<Measured> {
    this.#child.stdin.write(`${command}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`the C handler ended with status ${this.#child.exitCode} at '${command}'`);
    const answer = JSON.parse(value as string) as Answer | { readonly error: string };
    if ('error' in answer) {
      throw new CannotMeasure(
        `the C handler fails at ${answer.error}`,
        'It needs /dev/userfaultfd or CAP_SYS_PTRACE (run as root)',
      );
    }
    return { rate: rateOf(answer.pages, answer.took_ns), sum: BigInt(`0x${answer.sum}`) };
  }
}
