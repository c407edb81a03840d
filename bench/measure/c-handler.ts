import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { CannotMeasure } from './failure.js';
import { type NativePrograms } from './native.js';
import { type FaultRun, type Measured, type Memory, type Place, rateOf } from './run.js';

interface Answer {
  readonly pages: number;
  readonly took_ns: number;
  readonly sum: string;
}

/** The C side. Each run is a process of its own, with memory of its own; a first pass warms it up. */
export class CHandler {
  constructor(
    private readonly programs: NativePrograms,
    private readonly memory: Memory,
  ) {}

  faults({ wait, order, seed, place }: FaultRun): Promise<Measured> {
    const cpus = `${place.handler} ${place.toucher}`;
    return this.#measure(`${wait} ${order === 'random' ? 'random' : 'ascending'} ${seed} ${cpus}`);
  }

  /** Copies everything, `piece_bytes` in one UFFDIO_COPY. */
  bulk(piece_bytes: number, place: Place): Promise<Measured> {
    return this.#measure(`bulk ${piece_bytes} ${place.handler}`);
  }

  async #measure(command: string): Promise<Measured> {
    const { pages, pageSize, seed } = this.memory;
    const child = spawn(this.programs.handler, [pages, pageSize, seed].map(String), { stdio: 'pipe' });
    const ended = once(child, 'close');
    child.stdin.end(`${command}\n${command}\n`);
    let line: string | undefined;
    for await (const answer of createInterface({ input: child.stdout })) line = answer;
    await ended;
    if (line === undefined)
      throw new Error(`the C handler ended with status ${child.exitCode} at '${command}'`);
    const answer = JSON.parse(line) as Answer | { readonly error: string };
    if ('error' in answer) {
      throw new CannotMeasure(
        `the C handler fails at ${answer.error}`,
        'It needs /dev/userfaultfd or CAP_SYS_PTRACE (run as root)',
      );
    }
    return { rate: rateOf(answer.pages, answer.took_ns), sum: BigInt(`0x${answer.sum}`) };
  }
}
