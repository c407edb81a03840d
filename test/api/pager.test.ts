import { MessageChannel } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import {
  type Attachment,
  type Backend,
  DemandPagingError,
  fileOffset,
  gpa,
  type GpaRange,
  openPager,
  type Pager,
  type PagerOptions,
  type PageSource,
  requirements,
  type Resolver,
  runResolver,
  servePort,
  type Shard,
  Signal,
  type Supports,
  unmet,
} from '../../src/api/index.js';
import { memoryBackend } from '../../src/backends/memory/index.js';
import { FakePort } from './fake-port.js';

const PAGE = 4096;
const PAGES = 16;

/** Page n is filled with n % 200 + 1. */
const pattern: PageSource = {
  synchronous: false,
  length: 8192 * PAGE,
  read: (offset, into) => {
    for (let at = 0; at < into.length; at += PAGE)
      into.fill((((offset + at) / PAGE) % 200) + 1, at, at + PAGE);
    return Promise.resolve(into.length);
  },
};

const region = (page: number, pages: number) => ({
  gpa: gpa(page * PAGE),
  length: BigInt(pages * PAGE),
  sourceOffset: fileOffset(page * PAGE),
  memory: 'anonymous' as const,
  pageSize: PAGE,
});

const pages = (first: number, count: number): GpaRange[] => [
  { start: gpa(first * PAGE), length: BigInt(count * PAGE) },
];

const open = (options: Partial<PagerOptions> = {}): Promise<Pager> =>
  openPager({ backend: memoryBackend(), regions: [region(0, PAGES)], source: pattern, ...options });

/** The model's attachment, divided among ports driven by hand. */
function inShards(
  shards: readonly Shard[],
  supports: Partial<Supports> = {},
  abandonChild: (fd: number) => void = () => {},
): Backend {
  const inner = memoryBackend();
  return {
    name: 'in shards',
    probe: () => inner.probe(),
    async attach(layout): Promise<Attachment> {
      const attachment = await inner.attach(layout);
      return {
        layout: attachment.layout,
        coverage: attachment.coverage,
        supports: { ...attachment.supports, ...supports },
        memory: attachment.memory,
        shards,
        withdraw: () => {},
        moved: () => {},
        abandonChild,
        close: () => attachment.close(),
      };
    },
  };
}

const shard = (first: number, openPort: () => FakePort): Shard => ({
  pages: { first, count: 4096 },
  port: { where: 'here', open: openPort },
  kick: () => {},
});

/** The next error that nobody catches, which would otherwise be the end of the process. */
function nextUncaught(): Promise<Error> {
  const others = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  return new Promise((resolve) => {
    process.once('uncaughtException', (error) => {
      for (const other of others) process.on('uncaughtException', other);
      resolve(error);
    });
  });
}

describe('opening a pager', () => {
  it('leaves no resolver, port or source where one of its shards cannot be opened', async () => {
    const port = new FakePort(4096);
    let closedSources = 0;
    const failing = open({
      backend: inShards([
        shard(0, () => port),
        shard(4096, () => {
          throw new Error('no port');
        }),
      ]),
      regions: [region(0, 8192)],
      source: { ...pattern, close: () => void closedSources++ },
    });
    await expect(failing).rejects.toThrow('no port');
    expect([port.closed, closedSources]).toEqual([true, 2]);
  });

  it('refuses an access class that does not exist', async () => {
    await expect(open({ needs: ['vpcu' as never] })).rejects.toThrow(RangeError);
  });

  it('refuses a presence bitmap that is too short', async () => {
    await expect(open({ states: { present: new Uint8Array(1) } })).rejects.toThrow(RangeError);
  });

  it('refuses a region that reaches past the source', async () => {
    await expect(open({ source: { ...pattern, length: PAGES * PAGE - 1 } })).rejects.toMatchObject({
      code: 'BAD_RANGE',
    });
  });

  it('refuses to poison forked children where the backend cannot', async () => {
    const backend = inShards([], { verbs: ['copy', 'wake'], events: ['fork'] });
    await expect(open({ backend })).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  });

  it('refuses a policy that the backend cannot carry out', async () => {
    const backend = inShards([], { verbs: ['copy', 'wake'] });
    await expect(open({ backend, policy: { onSourceFailure: 'poison' } })).rejects.toMatchObject({
      code: 'NOT_SUPPORTED',
      hint: "Choose 'stop'",
    });
  });

  it('refuses a backend that this host lacks something for, naming each thing and its remedy', async () => {
    const denied = new DemandPagingError('NO_PERMISSION', 'opening is denied', { hint: 'Be root' });
    const list = [
      { what: 'Linux', met: true, found: 'linux', remedy: '' },
      unmet('a descriptor', denied),
      unmet('a machine', new Error('none'), 'Get one'),
    ];
    const backend: Backend = {
      name: 'memory',
      probe: () => requirements(list),
      attach: () => Promise.reject(new Error('attached')),
    };
    await expect(open({ backend })).rejects.toMatchObject({
      code: 'NO_PERMISSION',
      hint: 'Be root; Get one',
      message:
        'memory cannot be used here. a descriptor: opening is denied; a machine: Error: none. Be root; Get one',
    });
  });
});

describe('commands to a pager', () => {
  it('two withdrawals of one range leave it to be fetched anew', async () => {
    await using pager = await open();
    await pager.ensure(pages(0, 4));
    await Promise.all([pager.withdraw(pages(0, 4)), pager.withdraw(pages(0, 4))]);
    expect(await pager.memory!.read(gpa(0), 1)).toEqual(Uint8Array.of(1));
  });

  it('a hold keeps pages from being dropped, frozen and poisoned, until it is released', async () => {
    await using pager = await open();
    const hold = await pager.hold(pages(2, 2));
    for (const taking of ['remove', 'withdraw', 'freeze', 'poison'] as const)
      await expect(pager[taking](pages(0, 3))).rejects.toMatchObject({ code: 'PAGE_HELD' });
    expect(pager.memory!.readSync(gpa(2 * PAGE), 1)).toEqual(Uint8Array.of(3));
    hold.release();
    await pager.remove(pages(0, 3));
    expect(await pager.memory!.read(gpa(2 * PAGE), 1)).toEqual(Uint8Array.of(0));
  });

  it('a hint across a hole is no error', async () => {
    await using pager = await open({ regions: [region(0, 1), region(32, 1)] });
    expect(() => pager.memory!.hint(pages(0, 33))).not.toThrow();
  });

  it('a source that counts wrongly behind a port is not taken for contents', async () => {
    const { port1, port2 } = new MessageChannel();
    servePort(port2, { ...pattern, read: () => Promise.resolve(undefined as never) });
    const pager = await open({
      policy: { retries: 0, onSourceFailure: 'fail' },
      source: { port: port1, length: PAGES * PAGE, servedHere: true },
    });
    await expect(pager.memory!.read(gpa(0), 4)).rejects.toMatchObject({ code: 'PAGE_FAILED' });
    await pager.close({ missing: 'leave' });
    port2.close();
  });
});

describe('closing a pager', () => {
  it('waits for a withdrawal under way, and can populate after it', async () => {
    const pager = await open();
    await pager.ensure(pages(0, 4));
    const withdrawn = pager.withdraw(pages(0, 4));
    const closed = pager.close({ missing: 'populate' });
    expect(await Promise.allSettled([withdrawn, closed])).toEqual([
      { status: 'fulfilled', value: undefined },
      { status: 'fulfilled', value: undefined },
    ]);
    expect(pager.complete).toBe(true);
  });

  it('does not populate what is frozen: it is refused, and can be tried again after a thaw', async () => {
    const pager = await open();
    await pager.freeze(pages(3, 1));
    await expect(pager.close({ missing: 'populate' })).rejects.toMatchObject({ code: 'PAGE_FROZEN' });
    await pager.thaw(pages(3, 1));
    await pager.close({ missing: 'populate' });
    expect(pager.complete).toBe(true);
  });

  it('refuses a choice that does not exist, and goes on', async () => {
    const pager = await open();
    await expect(pager.close({ missing: 'posion' as never })).rejects.toThrow(RangeError);
    expect(await pager.memory!.read(gpa(0), 1)).toEqual(Uint8Array.of(1));
    await pager.close();
  });

  it('is refused where missing pages cannot be poisoned, changing nothing', async () => {
    const pager = await open();
    Object.defineProperty(pager, 'supports', { value: { ...pager.supports, verbs: ['copy'] } });
    await expect(pager.close()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
    expect(await pager.memory!.read(gpa(0), 1)).toEqual(Uint8Array.of(1));
    await pager.close({ missing: 'leave' });
  });

  it('refuses every command after it', async () => {
    const pager = await open();
    await pager.close();
    for (const command of [
      () => pager.ensure(pages(0, 1)),
      () => pager.withdraw(pages(0, 1)),
      () => pager.freeze(pages(0, 1)),
      () => pager.nameThread(1, 'vmm'),
      () => pager.memory!.read(gpa(0), 1),
    ])
      await expect(command()).rejects.toMatchObject({ code: 'CLOSED' });
    expect(() => pager.memory!.readSync(gpa(0), 1)).toThrow(expect.objectContaining({ code: 'CLOSED' }));
    expect(() => pager.off('removed', () => {})).not.toThrow();
  });
});

describe('what a pager says', () => {
  it('complete, heard, may close the pager while accesses are being let go', async () => {
    const backend = memoryBackend();
    const pager = await open({ backend });
    const closed = new Promise((resolve, reject) => {
      pager.on('complete', () => void pager.close().then(resolve, reject));
    });
    const accesses = await Promise.all(
      Array.from({ length: PAGES }, (_, page) => backend.kernel.run({ site: 'vmm-load', page })),
    );
    await closed;
    expect(pager.stopped).toBe(undefined);
    expect(accesses.map(({ state, bytes }) => `${state} ${bytes[0]}`)).toEqual(
      Array.from({ length: PAGES }, (_, page) => `done ${page + 1}`),
    );
  });

  it('a listener that throws is an uncaught error of its own; the pager goes on', async () => {
    await using pager = await open();
    const listener = (): void => {
      throw new Error('the listener');
    };
    const uncaught = nextUncaught();
    pager.once('installed', listener);
    await pager.ensure(pages(0, 1));
    expect(await uncaught).toMatchObject({ message: 'the listener' });
    expect(pager.stopped).toBe(undefined);
    expect(await pager.memory!.read(gpa(5 * PAGE), 1)).toEqual(Uint8Array.of(6));
  });

  it('a forked child that cannot be let go is a warning; the pager goes on', async () => {
    const port = new FakePort(4096);
    const asked: number[] = [];
    const backend = inShards([shard(0, () => port)], {}, (fd) => {
      asked.push(fd);
      throw new DemandPagingError('KERNEL', 'EINVAL');
    });
    await using pager = await open({ backend, regions: [region(0, 4096)] });
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    port.event({ kind: 'fork', fd: 99 });
    await pager.ensure(pages(0, 1)); // the fork is read at the latest with this
    expect(await warned).toMatchObject({
      code: 'KERNEL',
      message: expect.stringContaining('EINVAL') as string,
    });
    expect([asked, pager.stopped]).toEqual([[99], undefined]);
    await pager.ensure(pages(1, 1));
  });

  it('complete is said once, when every shard is, whatever was present at first', async () => {
    const ports = [new FakePort(8192), new FakePort(8192)];
    ports[0]!.pages.fill(9, 0, 4096);
    const pager = await open({
      backend: inShards(ports.map((port, i) => shard(i * 4096, () => port))),
      regions: [region(0, 8192)],
      states: { present: new Uint8Array(1024).fill(255, 0, 512) },
      policy: { faultAroundPages: 1 },
    });
    let said = 0;
    const complete = new Promise<void>((resolve) => {
      pager.on('complete', () => {
        said++;
        resolve();
      });
    });
    await pager.ensure(pages(0, 8192));
    await complete;
    expect(pager.statistics()).toMatchObject({ presentPages: 8192, ensuredPages: 4096 });
    await pager.close();
    expect(said).toBe(1);
  });

  it('a port whose wait fails ends the resolver, with the port’s own error', async () => {
    const port = new FakePort(PAGES);
    const gone = new DemandPagingError('MEMORY_GONE', 'the process has ended');
    port.ready = () => Promise.reject(gone);
    const idle = { ended: false, busy: false, nextDue_ms: Infinity, turn: () => false, onWork: () => {} };
    const run = runResolver({
      resolver: idle as unknown as Resolver,
      port,
      drain: () => {},
      blocking: undefined,
      signal: new Signal(),
    });
    await expect(run).rejects.toBe(gone);
  });
});
