import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test, type TestContext } from 'vitest';
import {
  closeDescriptor,
  ERRNO,
  load64,
  mapMemory,
  NativeBlock,
  pageSize,
  Poller,
  raw,
  receiveWithDescriptors,
  socketPair,
  UFFD_FEATURE,
  uffdFailure,
  Userfaultfd,
  type UffdEvent,
} from '../../src/linux/index.js';
import { openOrSkip } from './host-needs.js';
import { hasCompiler } from './kernel-headers.js';

const PAGE = pageSize();
const DEADLINE_MS = 20_000;
const FEATURES = UFFD_FEATURE.EVENT_FORK | UFFD_FEATURE.EVENT_REMAP;

const folder = mkdtempSync(join(tmpdir(), 'demand-paging-'));
afterAll(() => rmSync(folder, { recursive: true }));

function program(context: TestContext): string {
  if (!hasCompiler()) context.skip('no gcc here to build the foreign process');
  openOrSkip(context, { via: 'syscall' }, 'EVENT_FORK', 'EVENT_REMAP').close(); // as the process makes it
  const path = join(folder, 'foreign');
  execFileSync('gcc', [
    '-O1',
    '-Wall',
    '-o',
    path,
    fileURLToPath(new URL('./fixtures/foreign.c', import.meta.url)),
  ]);
  return path;
}

function ready(fd: number): void {
  using poller = new Poller([fd]);
  expect(poller.wait(DEADLINE_MS), 'something came in time').toBe(1);
}

/** A process whose memory is served from here. */
class Foreign {
  readonly child: ChildProcess;
  readonly uffd: Userfaultfd;
  readonly base: number;
  readonly length: number;
  readonly #channel: number;

  constructor(path: string) {
    const [here, there] = socketPair();
    this.child = spawn(path, { stdio: ['ignore', 'inherit', 'inherit', there] });
    closeDescriptor(there);
    this.#channel = here;
    ready(here);
    const { bytes, fds } = receiveWithDescriptors(here, 16);
    expect(fds).toHaveLength(1);
    this.uffd = Userfaultfd.adopt(fds[0]!, FEATURES);
    const words = new BigUint64Array(bytes.buffer);
    this.base = Number(words[0]);
    this.length = Number(words[1]);
  }

  tell(command: number): void {
    using block = new NativeBlock(1);
    block.bytes[0] = command;
    expect(raw.write(this.#channel, block.address, 1)).toBe(1);
  }

  answer(): number {
    using block = new NativeBlock(8);
    ready(this.#channel);
    expect(raw.read(this.#channel, block.address, 8)).toBe(8);
    return load64(block.words, 0);
  }

  event(): UffdEvent {
    ready(this.uffd.fd);
    expect(this.uffd.port.read(1)).toBe(1);
    return this.uffd.port.event(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.uffd.close();
    closeDescriptor(this.#channel); // the process ends when nothing more can come
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit');
  }
}

describe('the memory of another process', () => {
  test('is served through the descriptor it passed', async (context) => {
    await using foreign = new Foreign(program(context));
    using source = mapMemory({ kind: 'anonymous', length: PAGE });
    source.bytes().fill(0xc4);
    foreign.tell(3);
    expect(foreign.event()).toMatchObject({
      kind: 'fault',
      fault: 'missing',
      address: foreign.base + 3 * PAGE,
    });
    expect(foreign.uffd.port.copy(foreign.base + 3 * PAGE, source.address, PAGE)).toBe(0);
    expect(foreign.answer()).toBe(0xc4);
  });

  test('announces a fork with a descriptor for the copy', async (context) => {
    await using foreign = new Foreign(program(context));
    foreign.tell('f'.charCodeAt(0));
    const event = foreign.event();
    if (event.kind !== 'fork') throw new Error(`expected a fork, got ${event.kind}`);
    using copy = Userfaultfd.adopt(event.fd, FEATURES);
    expect(copy.fd).toBeGreaterThan(2);
    expect(foreign.answer()).toBeGreaterThan(0);
    expect(copy.port.zeropage(foreign.base, PAGE), 'the child has ended').toBe(-ERRNO.ESRCH);
    expect(foreign.uffd.port.zeropage(foreign.base, PAGE), 'the parent has not').toBe(0);
  });

  test('announces a move', async (context) => {
    await using foreign = new Foreign(program(context));
    using source = mapMemory({ kind: 'anonymous', length: PAGE });
    source.bytes().fill(0x1d);
    foreign.tell('m'.charCodeAt(0));
    const event = foreign.event();
    const moved = foreign.answer();
    expect(event).toEqual({ kind: 'remap', from: foreign.base, to: moved, length: foreign.length });
    expect(foreign.uffd.port.copy(foreign.base, source.address, PAGE), 'nothing is there now').toBe(
      -ERRNO.ENOENT,
    );
    foreign.tell(0);
    expect(foreign.event()).toMatchObject({ kind: 'fault', address: moved });
    expect(foreign.uffd.port.copy(moved, source.address, PAGE)).toBe(0);
    expect(foreign.answer()).toBe(0x1d);
  });

  test('is gone when the process is', async (context) => {
    await using foreign = new Foreign(program(context));
    foreign.child.kill('SIGKILL');
    await once(foreign.child, 'exit');
    const { uffd, base } = foreign;
    expect(uffd.port.zeropage(base, PAGE)).toBe(-ERRNO.ESRCH);
    expect(uffd.port.done).toBe(0);
    expect(uffdFailure('ZEROPAGE', -ERRNO.ESRCH, base, PAGE).code).toBe('MEMORY_GONE');
    expect(() => uffd.unregister(base, PAGE)).toThrow(expect.objectContaining({ code: 'MEMORY_GONE' }));
    expect(() => uffd.register(base, PAGE, 1)).toThrow(
      expect.objectContaining({ code: 'BAD_RANGE', errno: ERRNO.ENOMEM }),
    );
  });
});
