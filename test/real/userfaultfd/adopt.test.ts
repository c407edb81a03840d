import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test, type TestContext } from 'vitest';
import {
  type Attachment,
  type ContentsChoice,
  DemandPagingError,
  FaultBatch,
  type FaultPort,
  hva,
  MemoryLayout,
  openPager,
  type Pager,
  type PageStatesSnapshot,
  type RegionSpec,
} from '../../../src/api/index.js';
import { adopt, type AdoptOptions } from '../../../src/backends/userfaultfd/index.js';
import {
  acceptFrom,
  duplicate,
  ERRNO,
  EventFd,
  listenAt,
  makePipe,
  mapMemory,
  openProcess,
  raw,
  receiveWithDescriptors,
  Poller,
  setNonBlocking,
  socketPair,
  Userfaultfd,
} from '../../../src/linux/index.js';
import { memory } from '../../../src/sources/index.js';
import { DEADLINE_MS, openShard, PAGE, region, resolveOn, rows } from './scene.js';

const script = new URL('./fixtures/foreign.py', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'adopt-'));
let next = 0;

beforeAll(() => {
  expect(readdirSync(folder)).toEqual([]);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Another process whose memory is served from here. */
class Foreign implements AsyncDisposable {
  readonly batch = new FaultBatch(16);
  readonly #answers: AsyncIterator<string>;

  constructor(
    readonly child: ChildProcess,
    readonly attachment: Attachment,
    readonly port: FaultPort,
    readonly address: number,
    /** Closed with the attachment. */
    readonly uffd: number,
  ) {
    this.#answers = createInterface(child.stdout!)[Symbol.asyncIterator]();
  }

  static async start(context: TestContext, memory: 'anonymous' | 'shmem' = 'anonymous'): Promise<Foreign> {
    if (spawnSync('python3', ['--version']).status !== 0)
      context.skip('no python3 here to be the foreign process');
    const path = join(folder, `${next++}.socket`);
    const listener = listenAt(path);
    const child = spawn('python3', [script, path, memory], { stdio: ['pipe', 'pipe', 'inherit'] });
    comes(listener);
    const socket = acceptFrom(listener);
    comes(socket);
    const { bytes, fds } = receiveWithDescriptors(socket);
    raw.close(socket);
    raw.close(listener);
    const [address, pages] = Buffer.from(bytes).toString().split(' ').map(Number) as [number, number];
    const layout = new MemoryLayout([region(pages, memory, { hva: hva(address) })]);
    const events = ['fork', 'remap', 'remove', 'unmap'] as const;
    const faults: AdoptOptions['faults'] = memory === 'shmem' ? ['missing', 'write-protect'] : ['missing'];
    const backend = adopt({ uffd: fds[0]!, pid: child.pid, threadIds: true, events, faults });
    const attachment = await backend.attach(layout);
    await expect(backend.attach(layout)).rejects.toMatchObject({ code: 'ALREADY_REGISTERED' });
    return new Foreign(child, attachment, openShard(attachment), address, fds[0]!);
  }

  async ask(line: string): Promise<number> {
    this.child.stdin!.write(`${line}\n`);
    return Number((await this.#answers.next()).value);
  }

  take(): readonly unknown[] {
    this.batch.clear();
    const deadline = performance.now() + DEADLINE_MS;
    while (this.batch.count === 0 && performance.now() < deadline)
      this.port.take(this.batch, 'block', DEADLINE_MS);
    return rows(this.batch);
  }

  install(page: number, byte: number): void {
    this.port.staging.fill(byte, 0, PAGE);
    expect(resolveOn(this.port, { verb: 'copy', pages: { first: page, count: 1 }, from: 0 })).toMatchObject({
      outcome: 'installed',
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = this.child.exitCode !== null || this.child.signalCode !== null;
    const gone = exited ? undefined : new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGKILL');
    await gone;
    this.port.close();
    await this.attachment.close();
  }
}

/** Fails where nothing comes: what is waited for next has no time-out of its own. */
function comes(fd: number): void {
  using poller = new Poller([fd]);
  expect(poller.wait(DEADLINE_MS), 'the other process is heard of').toBe(1);
}

describe('memory of another process', () => {
  test('is served by copy; there is none here', async (context) => {
    const before = readdirSync('/proc/self/fd').length;
    {
      await using f = await Foreign.start(context);
      expect(f.attachment).toMatchObject({
        memory: undefined,
        supports: { discard: false, fill: false, residency: false, threadIds: true },
      });
      await expect(f.attachment.discard({ first: 0, count: 1 })).rejects.toMatchObject({
        code: 'NOT_SUPPORTED',
      });
      const value = f.ask('l 5');
      expect(f.take()).toMatchObject([{ kind: 'missing', page: 5, write: false, thread: f.child.pid }]);
      f.install(5, 0x5a);
      expect(await value).toBe(0x5a);
      expect(f.port.resident(5)).toBe(false);
    }
    expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before);
  });

  test('removals, unmapping and moves are followed', async (context) => {
    await using f = await Foreign.start(context);
    f.install(1, 1);
    const removed = f.ask('d 1');
    expect(f.take()).toEqual([{ kind: 'remove', pages: { first: 1, count: 1 } }]);
    expect(await removed).toBe(0);
    const moved = f.ask('m');
    const [event] = f.take() as [{ to: number }];
    expect(event).toMatchObject({ kind: 'remap', pages: { first: 0, count: 16 } });

    const value = (async () => {
      expect(await moved).toBe(event.to);
      return f.ask('l 3');
    })();
    expect(await served(f, value, 3, 33)).toBe(33);
    const unmapped = f.ask('u 4');
    expect(f.take()).toEqual([{ kind: 'unmap', pages: { first: 4, count: 1 } }]);
    expect(await unmapped).toBe(0);
    expect(resolveOn(f.port, { verb: 'copy', pages: { first: 4, count: 1 }, from: 0 })).toMatchObject({
      outcome: 'gone',
      errno: ERRNO.ENOENT,
    });
  });

  test("a forked child's missing pages fail there; what is present stays", async (context) => {
    await using f = await Foreign.start(context);
    f.install(2, 22);
    for (const [page, expected] of [
      [2, 22],
      [3, 200 + ERRNO.EFAULT],
    ] as const) {
      const status = f.ask(`f ${page}`);
      const [event] = f.take() as [{ kind: string; fd: number }];
      expect(event.kind).toBe('fork');
      const before = readdirSync('/proc/self/fd').length;
      f.attachment.abandonChild(event.fd);
      expect(readdirSync('/proc/self/fd').length).toBe(before - 1);
      expect(await status).toBe(expected);
    }
  });

  test("a hole in a forked child's memory hides nothing behind it", async (context) => {
    await using f = await Foreign.start(context);
    const unmapped = f.ask('u 4');
    f.take();
    expect(await unmapped).toBe(0);
    for (const page of [3, 5, 15]) {
      const status = f.ask(`f ${page}`);
      const [event] = f.take() as [{ fd: number }];
      f.attachment.abandonChild(event.fd);
      expect(await status, `page ${page}`).toBe(200 + ERRNO.EFAULT);
    }
  });

  test("a forked child's missing pages fail where it has moved them meanwhile", async (context) => {
    await using f = await Foreign.start(context);
    f.install(2, 22);
    // Nothing waits behind the event of a child that reads what is there: a blocking read would never end.
    for (const [page, expected] of [
      ...Array.from({ length: 20 }, () => [2, 22] as const),
      [3, 200 + ERRNO.EFAULT] as const,
    ]) {
      const status = f.ask(`g ${page}`);
      const [event] = f.take() as [{ fd: number }];
      setNonBlocking(event.fd, true); // poll(2) answers at once for a blocking one
      const moving = new Poller([event.fd]);
      expect(moving.wait(DEADLINE_MS)).toBe(1); // it waits for somebody to hear of the move
      moving.close();
      setNonBlocking(event.fd, false); // as it came
      f.attachment.abandonChild(event.fd);
      expect(await status).toBe(expected);
    }
  });

  test("a forked child's page that is protected and not there fails, too", async (context) => {
    await using f = await Foreign.start(context, 'shmem');
    f.install(2, 22);
    f.install(3, 33);
    const protect = { verb: 'writeprotect', pages: { first: 2, count: 2 }, protect: true } as const;
    expect(resolveOn(f.port, protect)).toMatchObject({ outcome: 'installed' });
    expect(await f.ask('p 3')).toBe(0);
    for (const [page, expected] of [
      [2, 22],
      [3, 200 + ERRNO.EFAULT],
    ] as const) {
      const status = f.ask(`f ${page}`);
      const [event] = f.take() as [{ fd: number }];
      f.attachment.abandonChild(event.fd);
      expect(await status, `page ${page}`).toBe(expected);
    }
  });

  test('its end is noticed at once, asleep or spinning, and resolving is gone', async (context) => {
    await using f = await Foreign.start(context);
    f.child.kill('SIGKILL');
    const gone = expect.objectContaining({ code: 'MEMORY_GONE' }) as Error;
    expect(() => f.port.take(f.batch, 'block', DEADLINE_MS)).toThrow(gone);
    expect(() => f.port.take(f.batch, 'spin', DEADLINE_MS)).toThrow(gone);
    await new Promise((resolve) =>
      (f.child.exitCode ?? f.child.signalCode) === null ? f.child.once('exit', resolve) : resolve(0),
    );
    expect(resolveOn(f.port, { verb: 'copy', pages: { first: 0, count: 1 }, from: 0 })).toMatchObject({
      outcome: 'gone',
      errno: ERRNO.ESRCH,
    });
  });
});

/** Serves a page when its fault comes, reading events until `value` is there. */
async function served(f: Foreign, value: Promise<number>, page: number, byte: number): Promise<number> {
  let over = false;
  void value.finally(() => (over = true));
  while (!over) {
    f.batch.clear();
    f.port.take(f.batch, 'none', 0);
    for (let row = 0; row < f.batch.count; row++) {
      expect(f.batch.fault(row)).toMatchObject({ kind: 'missing', page });
      f.install(page, byte);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  return value;
}

/** The code with which a descriptor is refused, and whether it is left as it was. */
async function refusedWith(uffd: number): Promise<unknown> {
  const layout = new MemoryLayout([region(1, 'anonymous', { hva: hva(0x7000_0000) })]);
  return adopt({ uffd })
    .attach(layout)
    .then(
      () => 'attached',
      (error: unknown) => (error instanceof DemandPagingError ? error.code : error),
    );
}

describe('an earlier handler', () => {
  test('that read a fault and went: who adopts next is asked for that page again', async (context) => {
    const f = await Foreign.start(context);
    const kept = duplicate(f.uffd);
    const value = f.ask('l 5');
    expect(f.take()).toMatchObject([{ kind: 'missing', page: 5 }]);
    f.port.close();
    await f.attachment.close(); // its descriptor goes; the one kept holds the registration
    const attachment = await adopt({ uffd: kept, pid: f.child.pid, threadIds: true }).attach(
      f.attachment.layout,
    );
    await using next = new Foreign(f.child, attachment, openShard(attachment), f.address, kept);
    expect(next.take()).toMatchObject([{ kind: 'missing', page: 5 }]);
    next.install(5, 55);
    expect(await value).toBe(55);
  });
});

/** Serves the foreign memory: page n is filled with n + 1. */
const serve = (
  { pid, region: spec }: { readonly pid: number; readonly region: RegionSpec },
  uffd: number,
  states?: PageStatesSnapshot,
): Promise<Pager> => {
  const image = new Uint8Array(16 * PAGE);
  for (let page = 0; page < 16; page++) image.fill(page + 1, page * PAGE, (page + 1) * PAGE);
  return openPager({
    backend: adopt({ uffd, pid, threadIds: true, events: ['fork', 'remap', 'remove', 'unmap'] }),
    regions: [spec],
    source: memory(image),
    needs: [],
    policy: { faultAroundPages: 1, onFork: 'hand-over' },
    ...(states && { states }),
  });
};

describe('states that are handed over', () => {
  test('what was removed stays removed in a second handler', async (context) => {
    const f = await Foreign.start(context);
    f.port.close();
    const placed = { pid: f.child.pid!, region: f.attachment.layout.toSpecs()[0]! };
    const [first, second] = [duplicate(f.uffd), duplicate(f.uffd)];
    await f.attachment.close();
    const before = await serve(placed, first);
    expect([await f.ask('l 5'), await f.ask('l 6'), await f.ask('d 5')]).toEqual([6, 7, 0]);
    await before.close({ missing: 'leave' });
    const states = before.snapshot();
    const after = await serve(placed, second, states);
    expect([await f.ask('l 5'), await f.ask('l 6'), await f.ask('l 7')]).toEqual([0, 7, 8]);
    await after.prefetch();
    f.child.kill('SIGKILL');
    await after.close({ missing: 'leave' });
  });

  test("in a forked child, and in a child's child", async (context) => {
    const f = await Foreign.start(context);
    f.port.close();
    const placed = { pid: f.child.pid!, region: f.attachment.layout.toSpecs()[0]! };
    const kept = duplicate(f.uffd);
    await f.attachment.close();
    const pagers = [await serve(placed, kept)];
    // Each child's memory is served by a pager of its own, from the states that its parent's had. A child
    // that waits for no page may have ended by then.
    let forks = 0;
    const ended: unknown[] = [];
    const serving: Promise<void>[] = [];
    const follow = (pager: Pager): void =>
      void pager.on('forked', (fd, states) => {
        forks++;
        const served = serve(placed, fd, states).then(
          (child) => {
            child.on('stopped', () => {}); // it ends with its process
            pagers.push(child);
            follow(child);
          },
          (error: unknown) => {
            raw.close(fd);
            ended.push((error as DemandPagingError).code);
          },
        );
        serving.push(served);
      });
    follow(pagers[0]!);
    expect([await f.ask('l 5'), await f.ask('l 6'), await f.ask('d 5')]).toEqual([6, 7, 0]);
    for (const how of ['f', 'h'])
      for (const [page, expected] of [
        [5, 0], // removed
        [6, 7], // present
        [9, 10], // missing
      ] as const)
        expect(await f.ask(`${how} ${page}`), `${how} ${page}`).toBe(expected);
    // What a child has discarded, whether it was there or not, is its child's zeros.
    for (const page of [6, 10]) expect(await f.ask(`c ${page}`), `c ${page}`).toBe(0);
    expect(await f.ask('l 6')).toBe(7);
    expect(forks).toBe(3 + 6 + 4);
    await Promise.all(serving);
    expect(ended.every((code) => code === 'MEMORY_GONE')).toBe(true);
    f.child.kill('SIGKILL');
    for (const pager of pagers) await pager.close({ missing: 'leave' });
  });

  test('contents can be looked at where the process may be traced: refused, kept; and not discarded from here', async (context) => {
    const f = await Foreign.start(context);
    f.install(3, 33);
    f.port.close();
    const placed = { pid: f.child.pid!, region: f.attachment.layout.toSpecs()[0]! };
    const kept = duplicate(f.uffd);
    await f.attachment.close();
    const given = (contents: ContentsChoice) => ({ ...placed, region: { ...placed.region, contents } });
    await expect(serve(given('refuse'), kept)).rejects.toMatchObject({ code: 'NOT_EMPTY' });
    await expect(serve(given('discard'), kept)).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
    const unseen = adopt({ uffd: kept }).attach(new MemoryLayout([given('refuse').region]));
    await expect(unseen).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
    const pager = await serve(given('keep'), kept);
    expect(pager.states.isPresent(3)).toBe(true);
    await pager.prefetch();
    expect(pager.statistics()).toMatchObject({ presentPages: 16, racedPages: 0 });
    expect([await f.ask('l 3'), await f.ask('l 4')]).toEqual([33, 5]);
    f.child.kill('SIGKILL');
    await pager.close({ missing: 'leave' });
  });
});

describe('refusals', () => {
  test.each([
    ['a regular file', () => [openSync('/etc/passwd', 'r')]],
    ['/dev/null', () => [openSync('/dev/null', 'r+')]],
    ['/dev/userfaultfd', () => [openSync('/dev/userfaultfd', 'r+')]],
    ['a socket', () => socketPair()],
    ['a pipe', () => makePipe()],
    ['an eventfd', () => [EventFd.create().fd]],
    ['a memory file', () => [mapMemory({ kind: 'shmem', length: PAGE }).fd!]],
    ['a pidfd', () => [openProcess(process.pid)]],
    ['a userfaultfd without a handshake', () => [raw.syscall('userfaultfd', 1)]],
  ])('%s is BAD_DESCRIPTOR, and blocks as before', async (_, open: () => readonly number[]) => {
    const [fd, ...rest] = open() as [number, ...number[]];
    try {
      const before = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
      expect(await refusedWith(fd)).toBe('BAD_DESCRIPTOR');
      expect(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).toBe(before);
    } finally {
      for (const each of [fd, ...rest]) raw.close(each);
    }
  });

  test('a socket whose peer is closed, and a closed number, are BAD_DESCRIPTOR', async () => {
    const [here, there] = socketPair();
    raw.close(there);
    expect(await refusedWith(here)).toBe('BAD_DESCRIPTOR');
    raw.close(here);
    expect(await refusedWith(here)).toBe('BAD_DESCRIPTOR');
    expect(await refusedWith(99_999)).toBe('BAD_DESCRIPTOR');
  });

  test('a region at no address of that process is BAD_RANGE', async () => {
    using uffd = Userfaultfd.open();
    const layout = new MemoryLayout([region(1, 'anonymous', { hva: hva(2 ** 52) })]);
    await expect(adopt({ uffd: uffd.fd }).attach(layout)).rejects.toMatchObject({ code: 'BAD_RANGE' });
  });

  test('a process that has ended is MEMORY_GONE, its number known or not', async (context) => {
    const f = await Foreign.start(context);
    const kept = duplicate(f.uffd);
    await f[Symbol.asyncDispose]();
    for (const pid of [undefined, f.child.pid]) {
      const attaching = adopt({ uffd: kept, pid }).attach(f.attachment.layout);
      await expect(attaching).rejects.toMatchObject({ code: 'MEMORY_GONE' });
    }
    raw.close(kept);
  });

  test('a region without an address', async () => {
    await expect(adopt({ uffd: 0 }).attach(new MemoryLayout([region(1)]))).rejects.toMatchObject({
      code: 'BAD_RANGE',
    });
  });

  test('options out of bounds', () => {
    expect(() => adopt({ uffd: -1 })).toThrow(RangeError);
    expect(() => adopt({ uffd: 3, faults: [] })).toThrow(RangeError);
    expect(() => adopt({ uffd: 3, staging_bytes: 1 })).toThrow(RangeError);
  });
});
