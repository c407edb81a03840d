import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import {
  fileOffset,
  gpa,
  type GpaRange,
  hva,
  type MemoryKind,
  openPager,
  type Pager,
  type PagerOptions,
  type RegionSpec,
} from '../../../src/api/index.js';
import { userfaultfd, type UserfaultfdBackendOptions } from '../../../src/backends/userfaultfd/index.js';
import { ERRNO, mapMemory } from '../../../src/linux/index.js';
import { Actor } from '../userfaultfd/actor.js';
import { PAGE, region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { FOREIGN_PAGES, ForeignProcess } from './foreign-process.js';
import { contents, pages } from './guest.js';

skipWithoutUserfaultfd();

const PAGES = 16;
const SOURCE_PAGES = 8192 + 64;
/** Where a region is added: beyond the first, with a hole between. */
const BASE = 0x100_0000;

const added = (given: Partial<RegionSpec> = {}, memory: MemoryKind = 'anonymous'): RegionSpec =>
  region(PAGES, memory, { gpa: gpa(BASE), sourceOffset: fileOffset(32 * PAGE), ...given });

const file = (given: Partial<RegionSpec> = {}): RegionSpec => added(given, 'shmem');

const range = (start: number, count: number): GpaRange[] => [
  { start: gpa(start), length: BigInt(count * PAGE) },
];

const all = range(BASE, PAGES);

const open = (
  options: {
    backend?: UserfaultfdBackendOptions;
    memory?: MemoryKind;
    pages?: number;
    source?: string;
    policy?: PagerOptions['policy'];
  } = {},
): Promise<Pager> =>
  openPager({
    backend: userfaultfd(options.backend),
    regions: [region(options.pages ?? PAGES, options.memory ?? 'anonymous')],
    source: {
      module: new URL('./fixtures/source.mjs', import.meta.url).href,
      export: options.source ?? 'open',
      options: { length: SOURCE_PAGES * PAGE },
    },
    policy: { faultAroundPages: 1, ...options.policy },
  });

const code = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'done',
    (error: { code?: string; name: string }) => error.code ?? error.name,
  );

/** Mappings of memory files that were made here. */
const mappings = (): number => readFileSync('/proc/self/maps', 'utf8').split('memfd:demand-paging').length;

const pagers: Pager[] = [];
const opened = async (...options: Parameters<typeof open>): Promise<Pager> => {
  const pager = await open(...options);
  pagers.push(pager);
  return pager;
};
afterEach(async () => {
  for (const pager of pagers.splice(0)) await pager.close();
});

describe('a region that is added', () => {
  test.each<[string, MemoryKind, UserfaultfdBackendOptions]>([
    ['anonymous', 'anonymous', {}],
    ['shmem', 'shmem', {}],
    ['shmem, installed by continue,', 'shmem', { install: 'continue' }],
    ['anonymous, installed by move,', 'anonymous', { install: 'move' }],
  ])('%s is served like the first: faults, prefetch, discards', async (_, memory, backend) => {
    const pager = await opened({ memory, backend });
    await pager.addRegions([added({}, memory)]);
    expect(pager.layout.regions.map(({ firstPage }) => firstPage)).toEqual([0, PAGES]);
    expect(pager.statistics().pages).toBe(2 * PAGES);
    await using actor = await Actor.start();
    expect(await actor.load(Number(pager.layout.hvaOf(PAGES + 3)))).toBe(contents(32 + 3));
    expect(pager.memory!.readBlocking(gpa(BASE + 4 * PAGE), 1)).toEqual(Uint8Array.of(contents(36)));
    expect((await pager.memory!.read(gpa(BASE + 5 * PAGE), 1))[0]).toBe(contents(37));
    await pager.discard(range(BASE + 3 * PAGE, 1), { then: 'refetch' });
    expect(pager.states.stateOf(PAGES + 3)).toBe('missing');
    await pager.discard(range(BASE + 4 * PAGE, 1), { then: 'zero' });
    expect(pager.memory!.readBlocking(gpa(BASE + 4 * PAGE), 1)).toEqual(Uint8Array.of(0));
    const complete = new Promise<void>((resolve) => pager.once('complete', resolve));
    await pager.ensure([...pages(0, PAGES), ...all]);
    await complete;
    expect(pager.complete).toBe(true);
  });

  test('of memory of the VMM at its own address is adopted, and left mapped when it is removed', async () => {
    using mapping = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
    const pager = await opened();
    await pager.addRegions([added({ hva: hva(mapping.address) })]);
    await using actor = await Actor.start();
    expect(await actor.load(mapping.address + PAGE)).toBe(contents(33));
    await pager.removeRegions(all);
    expect(await actor.load(mapping.address + PAGE)).toBe(contents(33));
    expect(await actor.kernelLoad(mapping.address + 2 * PAGE)).toBe(-ERRNO.EFAULT);
  });

  test('says which of its pages are there already', async () => {
    using mapping = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
    mapping.bytes().fill(0xee, 2 * PAGE, 3 * PAGE);
    const pager = await opened();
    await pager.addRegions([added({ hva: hva(mapping.address) })], {
      states: { present: Uint8Array.of(1 << 2, 0) },
    });
    expect(pager.statistics().presentPages).toBe(1);
    expect(pager.memory!.readBlocking(gpa(BASE + 2 * PAGE), 1)).toEqual(Uint8Array.of(0xee));
    expect(pager.memory!.readBlocking(gpa(BASE + 3 * PAGE), 1)).toEqual(Uint8Array.of(contents(35)));
  });

  test('with pages that the region does not declare: refused; discarded or kept if that is chosen', async () => {
    using mapping = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
    mapping.bytes().fill(0xee, 2 * PAGE, 3 * PAGE);
    const place = { hva: hva(mapping.address) };
    const pager = await opened();
    expect(await code(pager.addRegions([added(place)]))).toBe('NOT_EMPTY');
    expect(await code(pager.addRegions([added(place)], { states: { present: Uint8Array.of(1, 0) } }))).toBe(
      'PAGE_VANISHED',
    );
    expect(pager.layout.regions.length).toBe(1);
    await pager.addRegions([added({ ...place, contents: 'keep' })]);
    expect(pager.memory!.readBlocking(gpa(BASE + 2 * PAGE), 1)).toEqual(Uint8Array.of(0xee));
    expect(pager.statistics().presentPages).toBe(1);
    await pager.removeRegions(all, { missing: 'leave' });
    await pager.addRegions([added({ ...place, contents: 'discard' })]);
    expect(pager.memory!.readBlocking(gpa(BASE + 2 * PAGE), 1)).toEqual(Uint8Array.of(contents(34)));
  });

  test('is refused where it has memory in common with a region that is there', async () => {
    using mapping = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
    const pager = await opened({ memory: 'shmem' });
    const at = { file: { fd: mapping.fd!, offset: fileOffset(0) } };
    await pager.addRegions([file(at)]);
    const other = file({ gpa: gpa(2 * BASE), sourceOffset: fileOffset(0) });
    expect(await code(pager.addRegions([{ ...other, ...at }]))).toBe('BAD_RANGE');
    expect(await code(pager.addRegions([{ ...other, hva: hva(mapping.address) }]))).toBe('BAD_RANGE');
    expect(pager.layout.regions.length).toBe(2);
    expect(pager.memory!.readBlocking(gpa(BASE + 3 * PAGE), 1)).toEqual(Uint8Array.of(contents(35)));
  });

  test('comes with what was removed of it, and is handed on with it, by address', async () => {
    const pager = await opened();
    const states = { present: new Uint8Array(2), removed: Uint8Array.of(1 << 3, 0) };
    await pager.addRegions([added()], { states });
    expect(pager.memory!.readBlocking(gpa(BASE + 3 * PAGE), 1)).toEqual(Uint8Array.of(0));
    await pager.prefetch();
    const { removed, present } = pager.snapshot();
    const page = pager.layout.regions.findIndex(({ gpa: start }) => start === gpa(BASE)) === 0 ? 0 : 1;
    const before = page * pager.layout.regions[0]!.pageCount;
    const isSet = (bits: Uint8Array, at: number): boolean => (bits[at >>> 3]! & (1 << (at & 7))) !== 0;
    expect([isSet(removed!, before + 3), isSet(present, before + 3), isSet(removed!, before + 4)]).toEqual([
      true,
      true,
      false,
    ]);
  });

  test('goes to one of several resolvers, and shares no word of page states with another’s', async () => {
    const pager = await opened({ pages: 8192, backend: { shards: 2 } });
    await pager.addRegions([added({ gpa: gpa(0x1000_0000) })]);
    await pager.addRegions([added({ gpa: gpa(0x2000_0000) })]);
    const firsts = pager.layout.regions.map(({ firstPage }) => firstPage);
    expect(firsts).toEqual([0, 8192, 12288]);
    for (const start of [0x1000_0000, 0x2000_0000])
      expect(pager.memory!.readBlocking(gpa(start + PAGE), 1)).toEqual(Uint8Array.of(contents(33)));
    await pager.removeRegions(range(0, 8192)); // the shares of both
    expect(pager.statistics().pages).toBe(2 * PAGES);
    await pager.prefetch();
    expect(pager.complete).toBe(true);
  });

  test('is refused with nothing left behind', async () => {
    const pager = await opened({ memory: 'shmem' });
    const before = mappings();
    for (const [what, specs, expected] of [
      ['overlap', [file({ gpa: gpa(PAGE) })], 'BAD_RANGE'],
      ['overlap of its own', [file(), file()], 'BAD_RANGE'],
      ['past the source', [file({ sourceOffset: fileOffset(SOURCE_PAGES * PAGE) })], 'BAD_RANGE'],
      ['misaligned', [file({ gpa: gpa(BASE + 1) })], 'BAD_ALIGNMENT'],
      ['nothing mapped', [file(), file({ gpa: gpa(2 * BASE), hva: hva(0x1000_0000) })], 'BAD_RANGE'],
      ['another kind', [file(), added({ gpa: gpa(2 * BASE) })], 'NOT_SUPPORTED'],
      ['no region', [], 'BAD_RANGE'],
    ] as const)
      expect([what, await code(pager.addRegions(specs))]).toEqual([what, expected]);
    expect(await code(pager.addRegions([file()], { states: { present: new Uint8Array(1) } }))).toBe(
      'RangeError',
    );
    expect(mappings()).toBe(before);
    expect(pager.layout.regions.length).toBe(1);
    await pager.addRegions([file()]);
    expect(pager.memory!.readBlocking(gpa(BASE), 1)).toEqual(Uint8Array.of(contents(32)));
    expect(mappings()).toBe(before + 1);
  });

  test('while the pager closes is refused, or taken and closed with it', async () => {
    const before = mappings();
    const pager = await open({ memory: 'shmem' });
    const first = pager.addRegions([file()]);
    const closed = pager.close();
    expect(await code(pager.addRegions([added({ gpa: gpa(2 * BASE) })]))).toBe('CLOSED');
    expect(['done', 'CLOSED']).toContain(await code(first));
    await closed;
    expect(mappings()).toBe(before);
    expect(await code(pager.removeRegions(all))).toBe('CLOSED');
  });

  test('after the pager has stopped is refused', async () => {
    const pager = await opened({ source: 'throwing', policy: { retries: 0 } });
    await code(pager.ensure(pages(0, 1)));
    expect(await code(pager.addRegions([added()]))).toBe('STOPPED');
  });
});

describe('a region that is removed', () => {
  test('ends every access that waits there, and every request, and is no address any more', async () => {
    const pager = await opened();
    await pager.addRegions([added()]);
    const at = Number(pager.layout.hvaOf(PAGES));
    await using toucher = await Actor.start();
    await pager.freeze(all); // nothing is brought: accesses wait
    const waiting = toucher.kernelLoad(at + 5 * PAGE);
    await new Promise<void>((resolve) => {
      const look = (): void => (pager.statistics().heldFaults > 0 ? resolve() : void setImmediate(look));
      look();
    });
    const ensured = code(pager.ensure(all));
    const prefetched = code(pager.prefetch(all));
    await pager.removeRegions(all);
    expect(await waiting).toBe(-ERRNO.EFAULT);
    expect(await ensured).toBe('MEMORY_GONE');
    expect(await prefetched).toBe('done');
    expect(() => pager.memory!.readBlocking(gpa(BASE), 1)).toThrow(
      expect.objectContaining({ code: 'BAD_RANGE' }) as Error,
    );
    expect(await code(pager.ensure(all))).toBe('BAD_RANGE');
    expect(await toucher.kernelLoad(at)).toBe(-ERRNO.EFAULT); // nothing is mapped
    await pager.ensure(pages(0, PAGES));
    expect(pager.complete).toBe(true);
    expect(pager.stopped).toBe(undefined);
  });

  test('gives its memory back and can be added again, any number of times', async () => {
    const pager = await opened({ memory: 'shmem', backend: { install: 'continue' } });
    const before = mappings();
    for (let round = 0; round < 20; round++) {
      await pager.addRegions([added({}, 'shmem')]);
      expect(pager.memory!.readBlocking(gpa(BASE + PAGE), 1)).toEqual(Uint8Array.of(contents(33)));
      await pager.removeRegions(all);
    }
    expect(mappings()).toBe(before);
    expect(pager.statistics().pages).toBe(PAGES);
  });

  test.each([
    ['populate', contents(34)],
    ['zero', 0],
    ['leave', 0],
    ['poison', -ERRNO.EFAULT],
  ] as const)('with missing: %s leaves memory of the VMM so', async (missing, expected) => {
    using mapping = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
    const pager = await opened();
    await pager.addRegions([added({ hva: hva(mapping.address) })]);
    await pager.removeRegions(all, { missing });
    await using actor = await Actor.start();
    expect(await actor.kernelLoad(mapping.address + 2 * PAGE)).toBe(expected);
  });

  test('is refused in part, twice, held, or with a choice that does not exist', async () => {
    const pager = await opened();
    await pager.addRegions([added()]);
    expect(await code(pager.removeRegions(range(BASE, 2)))).toBe('BAD_RANGE');
    expect(await code(pager.removeRegions(range(BASE + PAGE, PAGES - 1)))).toBe('BAD_RANGE');
    expect(await code(pager.removeRegions([...all, ...all]))).toBe('BAD_RANGE');
    expect(() => pager.removeRegions(all, { missing: 'so' as 'zero' })).toThrow(RangeError);
    const hold = await pager.hold(range(BASE, 1));
    expect(await code(pager.removeRegions(all))).toBe('PAGE_HELD');
    hold.release();
    const both = [pager.removeRegions(all), pager.removeRegions(all)].map(code);
    expect(await Promise.all(both)).toEqual(['done', 'BAD_RANGE']);
  });

  test('while it is discarded, prefetched and closed ends all of that', async () => {
    const pager = await opened();
    await pager.addRegions([added()]);
    await pager.ensure(all);
    const under = [
      code(pager.discard(all, { then: 'refetch' })),
      code(pager.prefetch(all)),
      code(pager.removeRegions(all)),
      code(pager.discard(all, { then: 'refetch' })),
    ];
    const closed = pager.close();
    for (const one of await Promise.all(under))
      expect(['done', 'BAD_RANGE', 'CLOSED', 'MEMORY_GONE']).toContain(one);
    await closed;
  });
});

describe('memory of another process', () => {
  test('that it registers later is served once it is added', async (context) => {
    await using f = await ForeignProcess.start(context);
    const address = await f.ask('n');
    await f.pager.addRegions([added({ hva: hva(address) })]);
    expect(await f.read(address + 3 * PAGE)).toBe(contents(35));
    await f.pager.removeRegions(all);
    expect(await f.read(address + 3 * PAGE)).toBe(contents(35));
    expect(await f.read(address + 4 * PAGE)).toBe(200 + ERRNO.EFAULT);
    expect(await f.ask('l 5')).toBe(contents(5));
    expect(f.pager.statistics().outsideFaults).toBe(0);
  });

  test('that has grown is served where it has grown to, and moves with the rest', async (context) => {
    await using f = await ForeignProcess.start(context);
    const tail = await f.ask('e');
    await f.pager.addRegions([
      region(FOREIGN_PAGES, 'anonymous', {
        gpa: gpa(FOREIGN_PAGES * PAGE),
        sourceOffset: fileOffset(FOREIGN_PAGES * PAGE),
        hva: hva(tail),
      }),
    ]);
    expect(await f.read(tail)).toBe(contents(FOREIGN_PAGES));
    const moves: number[] = [];
    f.pager.on('remapped', (_, to) => moves.push(to));
    await f.ask('k'); // the first half moves
    expect(await f.ask('l 3')).toBe(contents(3));
    expect(await f.read(tail + PAGE)).toBe(contents(FOREIGN_PAGES + 1));
    expect(moves.length).toBe(1);
  });

  test('in which an access was answered before is refused: what is there is no source’s', async (context) => {
    await using f = await ForeignProcess.start(context, { onOutsideFault: 'zeros' });
    f.pager.on('outside-fault', () => {});
    const address = await f.ask('n');
    expect(await f.read(address + PAGE)).toBe(0);
    expect(await code(f.pager.addRegions([added({ hva: hva(address) })]))).toBe('BAD_RANGE');
    expect(await code(f.pager.addRegions([added()]))).toBe('BAD_RANGE'); // without an address
    expect(await f.ask('l 5')).toBe(contents(5));
  });

  test('that ends while regions come and go is MEMORY_GONE, and nothing waits', async (context) => {
    await using f = await ForeignProcess.start(context);
    const stopped = new Promise((resolve) => f.pager.once('stopped', resolve));
    const address = await f.ask('n');
    f.child.kill('SIGKILL');
    const change = code(f.pager.addRegions([added({ hva: hva(address) })]));
    expect(await stopped).toMatchObject({ code: 'MEMORY_GONE' });
    expect(['done', 'STOPPED', 'MEMORY_GONE']).toContain(await change);
    expect(['done', 'BAD_RANGE', 'MEMORY_GONE']).toContain(await code(f.pager.removeRegions(all)));
  });
});
