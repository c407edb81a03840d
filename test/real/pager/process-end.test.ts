import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { mapMemory, UFFD_REGISTER_MODE, Userfaultfd } from '../../../src/linux/index.js';
import { Rig } from '../kvm/rig.js';
import { PAGE, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';

skipWithoutUserfaultfd();

const fixture = (name: string): string => new URL(`./fixtures/${name}`, import.meta.url).pathname;
const EFAULT = 14;
const EHWPOISON = 133;

/** What a thread of this process reads of another's memory, or of its own; it waits for a missing page. */
async function read(pid: number, address: number): Promise<unknown> {
  const reader = new Worker(fixture('reader.mjs'), { workerData: { pid, address } });
  const [result] = (await once(reader, 'message')) as unknown[];
  return result;
}

/** How a process ended, and what it wrote to stderr. */
interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stderr: string;
}

/** The fixture in its own process. */
class Ending {
  readonly ended: Promise<Ended>;
  readonly #lines: AsyncIterator<string>;

  constructor(readonly child: ChildProcess) {
    let stderr = '';
    child.stderr!.on('data', (chunk) => (stderr += String(chunk)));
    this.ended = once(child, 'close').then(([code, signal]) => ({ code, signal, stderr }) as Ended);
    this.#lines = createInterface(child.stdout!)[Symbol.asyncIterator]();
  }

  static start(whose: string, way: string): Ending {
    const command = [fixture('ending.mjs'), whose, way];
    return new Ending(spawn(process.execPath, command, { timeout: 20_000, killSignal: 'SIGKILL' }));
  }

  async line(): Promise<string> {
    const { value } = await this.#lines.next();
    return String(value ?? (await this.ended).stderr);
  }

  /** Has it end, and waits until it has. */
  end(way: string): Promise<Ended> {
    if (way.startsWith('SIG')) this.child.kill(way as NodeJS.Signals);
    else if (way === 'handled' || way === 'polite') this.child.kill('SIGTERM');
    else this.child.stdin!.write('now\n');
    return this.ended;
  }
}

const WAYS = [
  ['exit', { code: 7 }],
  ['exit in a listener of the end', { code: 7 }],
  ['error', { code: 1, stderr: expect.stringMatching(/Error: the reason\n\s+at /) as string }],
  ['rejection', { code: 1, stderr: expect.stringMatching(/Error: the reason\n\s+at /) as string }],
  ['empty', { code: 0 }],
  ['SIGINT', { signal: 'SIGINT' }],
  ['SIGTERM', { signal: 'SIGTERM' }],
  ['SIGHUP', { signal: 'SIGHUP' }],
  ['SIGQUIT', { signal: 'SIGQUIT' }],
  ['handled', { code: 5 }],
  ['polite', { signal: 'SIGTERM' }],
] as const;

const ending = (how: Partial<Ended>): Ended => ({ code: null, signal: null, stderr: '', ...how });

/** Another process waits for a page of `whose` memory when that ends. */
async function externalReader(whose: string, way: string): Promise<{ result: unknown; ended: Ended }> {
  const owner = Ending.start(whose, way);
  const line = await owner.line();
  expect(line, 'the pager is open').toMatch(/^\{/);
  const { address } = JSON.parse(line) as { address: number };
  const result = read(owner.child.pid!, address);
  expect(await owner.line()).toBe('asked');
  const ended = await owner.end(way);
  return { result: await result, ended };
}

describe('an access of another process that waits when the process whose memory it is ends', () => {
  test.each(WAYS)('by %s: fails with EFAULT, and the process ends as it would have', async (way, how) => {
    const { result, ended } = await externalReader('own', way);
    expect([-EFAULT, -EHWPOISON]).toContain(result);
    expect(ended).toEqual(ending(how));
  });

  test.for(['shmem', 'composite', 'guest-memfd'])(
    'in %s memory: fails with EFAULT',
    async (whose, context) => {
      if (whose !== 'shmem') Rig.open(context)[Symbol.dispose]();
      const { result } = await externalReader(whose, 'exit');
      expect([-EFAULT, -EHWPOISON]).toContain(result);
    },
  );
});

describe('an access that waits when the process ends that has adopted its memory', () => {
  test.each(WAYS)('by %s: fails with EFAULT, and the process ends as it would have', async (way, how) => {
    using memory = mapMemory({ kind: 'anonymous', length: 16 * PAGE });
    const uffd = Userfaultfd.open({ features: 0 });
    uffd.register(memory.address, memory.length, UFFD_REGISTER_MODE.MISSING);
    const place = { pid: process.pid, fd: uffd.fd, address: memory.address };
    const handler = Ending.start(JSON.stringify(place), way);
    expect(await handler.line()).toMatch(/^\{/);
    uffd.close(); // the handler has the only descriptor now: with it everything would end in zeros
    const result = read(process.pid, memory.address + 3 * PAGE);
    expect(await handler.line()).toBe('asked');
    expect(await handler.end(way)).toEqual(ending(how));
    expect(await result).toBe(-EFAULT);
  });
});
