import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { describe, expect, test, type TestContext } from 'vitest';
import {
  type ContentsChoice,
  fileOffset,
  gpa,
  hva,
  openPager,
  PageStates,
  type Pager,
  type PagerOptions,
  MemoryLayout,
  type PageStatesSnapshot,
  type RegionSpec,
} from '../../../src/api/index.js';
import { startAccessor } from '../../../src/accessors/index.js';
import { type KvmBackend } from '../../../src/kvm/index.js';
import { composite } from '../../../src/backends/composite/index.js';
import { guestMemfd } from '../../../src/backends/guest-memfd/index.js';
import { kvmExit } from '../../../src/backends/kvm-exit/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { RegionContents } from '../../../src/backends/userfaultfd/region-contents.js';
import { GUEST_MEMFD_SHARED, type KvmVm, mapMemory, Mapping, raw } from '../../../src/linux/index.js';
import { needHugePages } from '../../support/huge-pages.js';
import { HUGE, PAGE, region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { vmOrSkip } from './vm.js';
import { contents, PAGES } from './guest.js';

skipWithoutUserfaultfd();

const OLD = 0xdd;
const LENGTH = PAGES * PAGE;
/** Clear of the identity-mapped low memory of any VM. */
const START = 0x1_0000_0000;

const open = (
  backend: PagerOptions['backend'],
  spec: RegionSpec,
  states?: PageStatesSnapshot,
  page_bytes = PAGE,
): Promise<Pager> =>
  openPager({
    backend,
    regions: [spec],
    source: {
      module: new URL('./fixtures/source.mjs', import.meta.url).href,
      export: 'open',
      options: { length: PAGES * page_bytes },
    },
    needs: [],
    policy: { faultAroundPages: 1 },
    ...(states && { states }),
  });

/** Bit by bit. */
function bitmap(...pages: readonly number[]): Uint8Array {
  const bits = new Uint8Array(PAGES / 8);
  for (const page of pages) bits[page >>> 3]! |= 1 << (page & 7);
  return bits;
}

const code = (opening: Promise<Pager>): Promise<unknown> =>
  opening.then(
    (pager) => pager.close().then(() => 'opened'),
    (error: unknown) => (error as { code?: string }).code ?? error,
  );

const firstByte = async (pager: Pager, page: number): Promise<number> => {
  const { pageSize, gpa: start } = pager.layout.regions[0]!;
  return (await pager.memory!.read(gpa(start + BigInt(page * pageSize)), 1))[0]!;
};

/** By a thread, which the pager knows nothing of. */
async function touched(pager: Pager, page: number): Promise<number> {
  const accessor = await startAccessor('vmm-load', pager.layout);
  try {
    const result = await accessor.access({ page, length: 1 });
    return result.ok ? result.bytes[0]! : -result.errno;
  } finally {
    await accessor.stop();
  }
}

const adopted = (mapping: Mapping, given: Partial<RegionSpec> = {}): RegionSpec =>
  region(PAGES, mapping.kind === 'shmem' ? 'shmem' : 'anonymous', {
    gpa: gpa(START),
    hva: hva(mapping.address),
    ...given,
  });

/**
 * Ways in which memory comes to have pages: of private memory, of shared, of both. Page 7 has something in
 * each.
 */
const WAYS: readonly (readonly [string, 'anonymous' | 'shmem', (mapping: Mapping) => void])[] = [
  ['written', 'anonymous', (mapping) => mapping.bytes(7 * PAGE, PAGE).fill(OLD)],
  [
    'read, and so the zero page',
    'anonymous',
    (mapping) => void expect(mapping.bytes(7 * PAGE, 1)[0]).toBe(0),
  ],
  ['populated', 'anonymous', (mapping) => void raw.madvise(mapping.address, LENGTH, 23)],
  ['written', 'shmem', (mapping) => mapping.bytes(7 * PAGE, PAGE).fill(OLD)],
  [
    'written through another mapping',
    'shmem',
    (mapping) => {
      using other = mapping.alias();
      other.bytes(7 * PAGE, PAGE).fill(OLD);
    },
  ],
  ['set aside, but not written', 'shmem', (mapping) => void raw.fallocate(mapping.fd!, 0, 7 * PAGE, PAGE)],
];

describe.each(WAYS)('memory %s (%s)', (_, kind, prepare) => {
  const named = (mapping: Mapping, given: Partial<RegionSpec> = {}): RegionSpec =>
    adopted(mapping, {
      ...given,
      ...(kind === 'shmem' && { file: { fd: mapping.fd!, offset: fileOffset(0) } }),
    });
  const unnamed = adopted;
  const places = kind === 'shmem' ? [named, unnamed] : [named];

  test('is refused, whatever the mode; and nothing of it is changed', async () => {
    for (const place of places) {
      for (const options of [{}, { sigbus: true }, { userModeOnly: true }]) {
        using mapping = mapMemory({ kind, length: LENGTH });
        prepare(mapping);
        const before = mapping.bytes(7 * PAGE, 1)[0];
        expect(await code(open(userfaultfd(options), place(mapping)))).toBe('NOT_EMPTY');
        expect(mapping.bytes(7 * PAGE, 1)[0]).toBe(before);
      }
    }
  });

  test('is discarded, if that is chosen: an access waits, and reads what the source has', async () => {
    for (const place of places) {
      using mapping = mapMemory({ kind, length: LENGTH });
      prepare(mapping);
      const pager = await open(userfaultfd(), place(mapping, { contents: 'discard' }));
      expect(await touched(pager, 7)).toBe(contents(7));
      await pager.prefetch();
      expect(pager.statistics()).toMatchObject({ presentPages: PAGES, racedPages: 0 });
      expect(await firstByte(pager, 7)).toBe(contents(7));
      await pager.close();
    }
  });

  test('is kept, if that is chosen: it counts as present, and no fault comes', async () => {
    for (const place of places) {
      using mapping = mapMemory({ kind, length: LENGTH });
      prepare(mapping);
      const before = mapping.bytes(7 * PAGE, 1)[0]!;
      const pager = await open(userfaultfd(), place(mapping, { contents: 'keep' }));
      expect(pager.states.isPresent(7)).toBe(true);
      await pager.prefetch();
      expect(pager.statistics()).toMatchObject({ presentPages: PAGES, racedPages: 0 });
      expect(await touched(pager, 7)).toBe(before);
      await pager.close();
    }
  });
});

describe('what the states say, and what is there', () => {
  const cases: readonly (readonly [string, readonly number[], readonly number[], ContentsChoice, string])[] =
    [
      ['the same', [7], [7], 'refuse', 'opened'],
      ['more is there: refused', [7], [7, 9], 'refuse', 'NOT_EMPTY'],
      ['more is there: discarded', [7], [7, 9], 'discard', 'opened'],
      ['more is there: kept', [7], [7, 9], 'keep', 'opened'],
      ['less is there', [7, 9], [7], 'refuse', 'PAGE_VANISHED'],
      ['less is there, whatever becomes of the rest', [7, 9], [7, 11], 'discard', 'PAGE_VANISHED'],
      ['nothing is there', [0], [], 'keep', 'PAGE_VANISHED'],
    ];
  test.each(cases)('%s', async (_, said, there, choice, expected) => {
    for (const kind of ['anonymous', 'shmem'] as const) {
      using mapping = mapMemory({ kind, length: LENGTH });
      for (const page of there) mapping.bytes(page * PAGE, PAGE).fill(OLD);
      const opening = open(userfaultfd(), adopted(mapping, { contents: choice }), {
        present: bitmap(...said),
      });
      if (expected !== 'opened') {
        expect(await code(opening)).toBe(expected);
        continue;
      }
      const pager = await opening;
      const kept = choice === 'keep' ? there : said;
      for (const page of there)
        expect(await touched(pager, page)).toBe(kept.includes(page) ? OLD : contents(page));
      await pager.close();
    }
  });

  test('what the pager maps itself has nothing: a page that is said to be there is PAGE_VANISHED', async () => {
    const states = { present: bitmap(3) };
    for (const memory of ['anonymous', 'shmem'] as const)
      expect(await code(open(userfaultfd(), region(PAGES, memory), states))).toBe('PAGE_VANISHED');
  });

  test('a removed page, by any access: reads zeros, never the source', async () => {
    const pager = await open(userfaultfd(), region(PAGES), { present: bitmap(), removed: bitmap(5, 6) });
    expect(await touched(pager, 5)).toBe(0);
    await pager.prefetch();
    expect(pager.states.stateOf(6)).toBe('removed');
    expect(await firstByte(pager, 6)).toBe(0);
    expect(await firstByte(pager, 7)).toBe(contents(7));
    await pager.close();
  });

  test('a page touched while the memory is looked at is discarded, or refused: never read as it is', async () => {
    using mapping = mapMemory({ kind: 'anonymous', length: LENGTH });
    mapping.bytes(7 * PAGE, PAGE).fill(OLD);
    // A thread that touches pages all the while, without a pause.
    const toucher = await startAccessor('vmm-store', new MemoryLayout([adopted(mapping)]));
    let over = false;
    let touches = 0;
    const touching = (async () => {
      while (!over) {
        await toucher.access({ page: touches % 4, bytes: Uint8Array.of(OLD) });
        touches++;
      }
    })();
    const opening = open(userfaultfd(), adopted(mapping, { contents: 'discard' }));
    const pager = await opening;
    expect(await touched(pager, 7)).toBe(contents(7));
    // Of a page that it writes, the rest is the source's.
    await pager.ensure([{ start: gpa(START), length: BigInt(4 * PAGE) }]);
    for (const page of [0, 1, 2, 3]) {
      const bytes = await pager.memory!.read(gpa(START + page * PAGE), PAGE);
      expect([...new Set(bytes.subarray(1))]).toEqual([contents(page)]);
    }
    over = true;
    await touching;
    await toucher.stop();
    await pager.close();
  });
});

/** A memory file that another guest has left behind, in a file system or without a name. */
function oldFile(): number {
  const path = `/dev/shm/contents-${process.pid}`;
  const fd = openSync(path, 'w+');
  unlinkSync(path);
  writeSync(fd, Buffer.alloc(LENGTH, OLD));
  return fd;
}

type Make = (vm: KvmVm) => PagerOptions['backend'] | KvmBackend;
const FILES: readonly (readonly [string, Make])[] = [
  ['userfaultfd', () => userfaultfd()],
  ['userfaultfd, continue', () => userfaultfd({ install: 'continue' })],
  ['composite', (vm) => composite({ vm: vm.fd, vcpus: 1 })],
  ['kvm-exit', (vm) => kvmExit({ vm: vm.fd, vcpus: 1 })],
  ['guest-memfd', (vm) => guestMemfd({ vm: vm.fd, vcpus: 1 })],
];

describe.each(FILES)('%s: a memory file that is used again', (name, make) => {
  function prepared(context: TestContext): { vm: KvmVm; fd: number; spec: RegionSpec } {
    const vm = vmOrSkip(context);
    let fd: number;
    if (name === 'guest-memfd') {
      if (!vm.sharesGuestMemfd) return context.skip('no guest_memfd that can be mapped');
      fd = vm.createGuestMemfd(LENGTH, GUEST_MEMFD_SHARED);
      const mapped = raw.mmap(0, LENGTH, 3, 1, fd, 0);
      using filled = mapOver(mapped);
      filled.bytes(0, LENGTH).fill(OLD);
      raw.munmap(mapped, LENGTH);
    } else fd = oldFile();
    const memory = name === 'guest-memfd' ? 'guest-memfd' : 'shmem';
    return {
      vm,
      fd,
      spec: { ...region(PAGES, memory, { gpa: gpa(START) }), file: { fd, offset: fileOffset(0) } },
    };
  }
  const mapOver = (address: number): Mapping =>
    Mapping.borrow({ kind: 'anonymous', address, length: LENGTH, pageSize: PAGE, fd: undefined });

  test('is refused; emptied it serves the source; kept it counts as present', async (context) => {
    const { vm, fd, spec } = prepared(context);
    try {
      expect(await code(open(make(vm), spec))).toBe('NOT_EMPTY');
      const kept = await open(make(vm), { ...spec, contents: 'keep' });
      expect(kept.complete).toBe(true);
      expect(await firstByte(kept, 7)).toBe(OLD);
      await kept.close();
      const emptied = await open(make(vm), { ...spec, contents: 'discard' });
      expect(emptied.statistics().presentPages).toBe(0);
      expect(await firstByte(emptied, 9)).toBe(contents(9));
      if (name !== 'kvm-exit') expect(await touched(emptied, 7)).toBe(contents(7));
      await emptied.close();
    } finally {
      closeSync(fd);
      vm[Symbol.dispose]();
    }
  });
});

const MAPPED = FILES.filter(([name]) => name !== 'guest-memfd');

describe.each(MAPPED)('%s: memory that is not what a region says', (name, make) => {
  function withVm(context: TestContext, body: (vm: KvmVm, fd: number) => Promise<void>): Promise<void> {
    const vm = vmOrSkip(context);
    const mapping = mapMemory({ kind: 'shmem', length: 2 * LENGTH });
    return body(vm, mapping.fd!).finally(() => {
      mapping.dispose();
      vm[Symbol.dispose]();
    });
  }
  const at = (fd: number, offset: number, given: Partial<RegionSpec> = {}): RegionSpec =>
    region(PAGES, 'shmem', { gpa: gpa(START), file: { fd, offset: fileOffset(offset) }, ...given });
  const attached = async (
    backend: PagerOptions['backend'],
    regions: readonly RegionSpec[],
  ): Promise<string> => {
    try {
      await (await backend.attach(new MemoryLayout(regions))).close();
      return 'attached';
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  test('two regions with one place of a file are refused; with places of their own they are taken', (context) =>
    withVm(context, async (vm, fd) => {
      const beside = (offset: number): readonly RegionSpec[] => [
        at(fd, 0),
        at(fd, offset, { gpa: gpa(2 * START) }),
      ];
      expect(await attached(make(vm), beside(0))).toBe('BAD_RANGE');
      expect(await attached(make(vm), beside(LENGTH / 2))).toBe('BAD_RANGE');
      expect(await attached(make(vm), beside(LENGTH))).toBe('attached');
    }));

  test('a region that names another file than is mapped there is refused', (context) =>
    withVm(context, async (vm, fd) => {
      using mapping = mapMemory({ kind: 'shmem', length: LENGTH });
      const spec = at(fd, 0, { hva: hva(mapping.address), contents: 'discard' });
      mapping.bytes(7 * PAGE, 1)[0] = OLD;
      expect(await attached(make(vm), [spec])).toBe('BAD_RANGE');
      const right = { fd: mapping.fd!, offset: fileOffset(0) };
      expect(await attached(make(vm), [{ ...spec, file: right }])).toBe('attached');
      expect(mapping.residency().every((there) => there === 0)).toBe(true);
    }));

  test.for(['shmem', 'anonymous'] as const)(
    'what is discarded of memory whose file is not named (%s) comes from the source again',
    (kind, context) => {
      return withVm(context, async (vm) => {
        using mapping = mapMemory({ kind, length: LENGTH });
        // It writes into the page cache of a file that it must know.
        if (name === 'userfaultfd, continue')
          return expect(await code(open(make(vm), adopted(mapping)))).toBe('NOT_SUPPORTED');
        const pager = await open(make(vm), adopted(mapping, { file: undefined }));
        expect(await firstByte(pager, 7)).toBe(contents(7));
        await pager.memory!.write(gpa(START + 7 * PAGE), Uint8Array.of(OLD));
        await pager.discard([{ start: gpa(START + 7 * PAGE), length: BigInt(PAGE) }], { then: 'refetch' });
        expect(await firstByte(pager, 7)).toBe(contents(7));
        await pager.close();
      });
    },
  );

  test('private memory of a file is refused where the file has pages, and not emptied', (context) =>
    withVm(context, async (vm, fd) => {
      const address = raw.mmap(0, LENGTH, 3, 2, fd, 0);
      const spec = region(PAGES, 'anonymous', { gpa: gpa(START), hva: hva(address) });
      raw.fallocate(fd, 0, 7 * PAGE, PAGE);
      const backend = make(vm);
      const needsName = name === 'userfaultfd, continue';
      expect(await attached(backend, [spec])).toBe(needsName ? 'NOT_SUPPORTED' : 'NOT_EMPTY');
      expect(await attached(backend, [{ ...spec, contents: 'discard' }])).toBe('NOT_SUPPORTED');
      raw.munmap(address, LENGTH);
    }));
});

test('what the pager has mapped itself, and a process with locked memory finds full (mlockall), is emptied', () => {
  using mapping = mapMemory({ kind: 'anonymous', length: LENGTH, populate: true });
  const layout = new MemoryLayout([region(PAGES)]);
  const memory = { start: mapping.address, fd: undefined, fileOffset: 0, mapped: true, ownsFile: false };
  const steps: string[] = [];
  const regionContents = new RegionContents(layout.regions, [memory], PageStates.create(PAGES));
  regionContents.settle(
    () => steps.push('register'),
    () => steps.push('unregister'),
  );
  regionContents.close();
  expect(steps).toEqual(['register', 'unregister', 'register']);
  expect(mapping.residency().every((there) => there === 0)).toBe(true);
});

test('memory that is touched anew whenever it was emptied is refused in the end', () => {
  using mapping = mapMemory({ kind: 'anonymous', length: LENGTH });
  const layout = new MemoryLayout([adopted(mapping, { contents: 'discard' })]);
  const memory = { start: mapping.address, fd: undefined, fileOffset: 0, mapped: false, ownsFile: false };
  const regionContents = new RegionContents(layout.regions, [memory], PageStates.create(PAGES));
  const settle = (): void =>
    regionContents.settle(
      () => void mapping.bytes(0, 1).fill(OLD),
      () => {},
    );
  expect(settle).toThrow(expect.objectContaining({ code: 'NOT_EMPTY' }));
  regionContents.close();
});

test('huge pages of a file that is used again are refused, emptied, or kept', async (context) => {
  using _pool = needHugePages(context, PAGES, HUGE);
  using mapping = mapMemory({ kind: 'hugetlb-shmem', length: PAGES * HUGE });
  mapping.bytes(3 * HUGE, 1)[0] = OLD;
  const file = { fd: mapping.fd!, offset: fileOffset(0) };
  const spec = region(PAGES, 'hugetlb', {
    gpa: gpa(START),
    length: BigInt(PAGES * HUGE),
    pageSize: HUGE,
    file,
  });
  expect(await code(open(userfaultfd(), spec, undefined, HUGE))).toBe('NOT_EMPTY');
  const kept = await open(userfaultfd(), { ...spec, contents: 'keep' }, undefined, HUGE);
  expect(kept.statistics().presentPages).toBe(1);
  expect(await firstByte(kept, 3)).toBe(OLD);
  await kept.close();
  const emptied = await open(userfaultfd(), { ...spec, contents: 'discard' }, undefined, HUGE);
  expect(await touched(emptied, 3)).toBe(contents((3 * HUGE) / PAGE));
  await emptied.close();
});
