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
        discard: () => {},
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
  it('with a shard that cannot be opened: no resolver, port or source is left', async () => {
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

  it('with an unknown access class: refused', async () => {
    await expect(open({ needs: ['vpcu' as never] })).rejects.toThrow(RangeError);
  });

  it('with a presence bitmap that is too short: refused', async () => {
    await expect(open({ states: { present: new Uint8Array(1) } })).rejects.toThrow(RangeError);
  });

  it('with a region that reaches past the source: refused', async () => {
    await expect(open({ source: { ...pattern, length: PAGES * PAGE - 1 } })).rejects.toMatchObject({
      code: 'BAD_RANGE',
    });
  });

  it('with forked children to poison on a backend without poison: refused', async () => {
    const backend = inShards([], { verbs: ['copy', 'wake'], events: ['fork'] });
    await expect(open({ backend })).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  });

  it('with a policy that the backend cannot carry out: refused', async () => {
    const backend = inShards([], { verbs: ['copy', 'wake'] });
    await expect(open({ backend, policy: { onSourceFailure: 'poison' } })).rejects.toMatchObject({
      code: 'NOT_SUPPORTED',
      hint: "Choose 'stop'",
    });
  });

  it('with unmet requirements: refused, naming each with its remedy', async () => {
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
  it('two discards of one range that are to be fetched again: it is missing, and fetched', async () => {
    await using pager = await open();
    await pager.ensure(pages(0, 4));
    await Promise.all([
      pager.discard(pages(0, 4), { then: 'refetch' }),
      pager.discard(pages(0, 4), { then: 'refetch' }),
    ]);
    expect(await pager.memory!.read(gpa(0), 1)).toEqual(Uint8Array.of(1));
  });

  it('a hold: discard, freeze and poison are refused until it is released', async () => {
    await using pager = await open();
    const hold = await pager.hold(pages(2, 2));
    for (const then of ['zero', 'refetch'] as const)
      await expect(pager.discard(pages(0, 3), { then })).rejects.toMatchObject({ code: 'PAGE_HELD' });
    for (const verb of ['freeze', 'poison'] as const)
      await expect(pager[verb](pages(0, 3))).rejects.toMatchObject({ code: 'PAGE_HELD' });
    expect(pager.memory!.readSync(gpa(2 * PAGE), 1)).toEqual(Uint8Array.of(3));
    hold.release();
    await pager.discard(pages(0, 3), { then: 'zero' });
    expect(await pager.memory!.read(gpa(2 * PAGE), 1)).toEqual(Uint8Array.of(0));
  });

  it('discard without a choice of what comes then, or with another: refused, and nothing is discarded', async () => {
    await using pager = await open();
    await pager.ensure(pages(0, 1));
    for (const then of [undefined, 'missing'])
      await expect(pager.discard(pages(0, 1), { then } as never)).rejects.toThrow(RangeError);
    expect(pager.states.isPresent(0)).toBe(true);
  });

  it('a hint across a hole between regions: no error', async () => {
    await using pager = await open({ regions: [region(0, 1), region(32, 1)] });
    expect(() => pager.memory!.hint(pages(0, 33))).not.toThrow();
  });

  it('a source behind a port that answers no count: not taken for contents', async () => {
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
  it('close waits for a discard in progress, and populates after it', async () => {
    const pager = await open();
    await pager.ensure(pages(0, 4));
    const discarded = pager.discard(pages(0, 4), { then: 'refetch' });
    const closed = pager.close({ missing: 'populate' });
    expect(await Promise.allSettled([discarded, closed])).toEqual([
      { status: 'fulfilled', value: undefined },
      { status: 'fulfilled', value: undefined },
    ]);
    expect(pager.complete).toBe(true);
  });

  it('populate with a frozen page: refused, and works after a thaw', async () => {
    const pager = await open();
    await pager.freeze(pages(3, 1));
    await expect(pager.close({ missing: 'populate' })).rejects.toMatchObject({ code: 'PAGE_FROZEN' });
    await pager.thaw(pages(3, 1));
    await pager.close({ missing: 'populate' });
    expect(pager.complete).toBe(true);
  });

  it('with an unknown choice: refused, and the pager goes on', async () => {
    const pager = await open();
    await expect(pager.close({ missing: 'posion' as never })).rejects.toThrow(RangeError);
    expect(await pager.memory!.read(gpa(0), 1)).toEqual(Uint8Array.of(1));
    await pager.close();
  });

  it('with missing pages and no poison: refused, and nothing changes', async () => {
    const pager = await open();
    Object.defineProperty(pager, 'supports', { value: { ...pager.supports, verbs: ['copy'] } });
    await expect(pager.close()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
    expect(await pager.memory!.read(gpa(0), 1)).toEqual(Uint8Array.of(1));
    await pager.close({ missing: 'leave' });
  });

  it('commands after it: refused', async () => {
    const pager = await open();
    await pager.close();
    for (const command of [
      () => pager.ensure(pages(0, 1)),
      () => pager.discard(pages(0, 1), { then: 'refetch' }),
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
  it('complete, whose listener closes the pager: accesses are let go', async () => {
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

  it('a listener that throws: an uncaught error of its own, and the pager goes on', async () => {
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

  it('a forked child whose accesses cannot be let go: a warning, and the pager goes on', async () => {
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

  it('complete: emitted once, when every shard is, whatever was present at first', async () => {
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

  it('a port whose wait fails: the resolver ends with the port’s own error', async () => {
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
