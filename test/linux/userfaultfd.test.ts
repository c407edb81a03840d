import { describe, expect, test, type TestContext } from 'vitest';
import {
  ERRNO,
  EventFd,
  isUnreachable,
  load8,
  MADV,
  type Mapping,
  mapMemory,
  pageSize,
  pagemap,
  POLL,
  Poller,
  raw,
  UFFD_CONTINUE_MODE,
  UFFD_COPY_MODE,
  UFFD_EVENT,
  UFFD_FEATURE,
  UFFD_MOVE_MODE,
  UFFD_REGISTER_MODE,
  UFFD_RWPROTECT_MODE,
  UFFD_WRITEPROTECT_MODE,
  Userfaultfd,
  userfaultfdSupport,
  type UffdEvent,
  type UffdFeature,
  type UserfaultfdOptions,
} from '../../src/linux/index.js';
import { needHugePages } from '../support/huge-pages.js';
import { openOrSkip } from './host-needs.js';
import { Toucher } from './toucher.js';

const PAGE = pageSize();
const DEADLINE_MS = 20_000;

/** Waits for the next batch of events; fails instead of hanging. */
function take(uffd: Userfaultfd): UffdEvent[] {
  using poller = new Poller([uffd.fd]);
  expect(poller.wait(DEADLINE_MS), 'an event came').toBe(1);
  expect(poller.ready(0)).toBe(POLL.IN);
  const count = uffd.port.read();
  expect(count).toBeGreaterThan(0);
  return Array.from({ length: count }, (_, index) => uffd.port.event(index));
}

function takeFault(uffd: Userfaultfd): Extract<UffdEvent, { kind: 'fault' }> {
  const events = take(uffd);
  expect(events).toHaveLength(1);
  const [event] = events;
  if (event?.kind !== 'fault') throw new Error(`expected a fault, got ${event?.kind}`);
  return event;
}

interface Scene extends AsyncDisposable {
  readonly uffd: Userfaultfd;
  readonly memory: Mapping;
  readonly toucher: Toucher;
}

interface SceneOptions extends UserfaultfdOptions {
  readonly kind?: 'anonymous' | 'shmem' | 'hugetlb';
  readonly pages?: number;
  readonly mode?: number;
  readonly needs?: readonly UffdFeature[];
}

async function scene(context: TestContext, options: SceneOptions = {}): Promise<Scene> {
  const uffd = openOrSkip(context, options, ...(options.needs ?? []));
  const kind = options.kind ?? 'anonymous';
  const unit = kind === 'hugetlb' ? 0x20_0000 : PAGE;
  const memory = mapMemory({
    kind,
    length: (options.pages ?? 8) * unit,
    transparentHugePages: kind === 'anonymous' ? false : undefined,
  });
  uffd.register(memory.address, memory.length, options.mode ?? UFFD_REGISTER_MODE.MISSING);
  const toucher = await Toucher.start();
  return {
    uffd,
    memory,
    toucher,
    async [Symbol.asyncDispose]() {
      uffd.close(); // wakes whoever still waits, so that the worker can end
      await toucher[Symbol.asyncDispose]();
      memory.dispose();
    },
  };
}

function pageOf(byte: number): Mapping {
  const source = mapMemory({ kind: 'anonymous', length: PAGE });
  source.bytes().fill(byte);
  return source;
}

describe('handshake', () => {
  test('answers features and ioctls by name', (context) => {
    openOrSkip(context, {}).close();
    const support = userfaultfdSupport();
    expect(support.ioctls).toEqual(expect.arrayContaining(['API', 'REGISTER', 'UNREGISTER']));
    expect(support.features).toContain('MISSING_SHMEM');
    for (const feature of support.features) expect(support.mask & BigInt(UFFD_FEATURE[feature])).not.toBe(0n);
  });

  test('each advertised feature opens, alone or with what it needs; an unadvertised one is NOT_SUPPORTED by name', (context) => {
    openOrSkip(context, {}).close();
    const { features } = userfaultfdSupport();
    const NEEDS: Partial<Record<UffdFeature, UffdFeature>> = { RWP_ASYNC: 'RWP' };
    for (const name of Object.keys(UFFD_FEATURE) as UffdFeature[]) {
      const needed = NEEDS[name];
      const mask = UFFD_FEATURE[name] | (needed ? UFFD_FEATURE[needed] : 0);
      const open = (): Userfaultfd => Userfaultfd.open({ features: mask });
      if (features.includes(name)) {
        using uffd = open();
        expect(uffd.enabled).toBe(mask);
        if (needed)
          expect(() => Userfaultfd.open({ features: UFFD_FEATURE[name] })).toThrow(
            expect.objectContaining({ code: 'NOT_SUPPORTED', errno: ERRNO.EINVAL }),
          );
      } else {
        expect(open).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED', errno: ERRNO.EINVAL }));
        expect(open).toThrow(name);
      }
    }
  });

  test('bits outside the known mask are refused here', () => {
    expect(() => Userfaultfd.open({ features: 1 << 30 })).toThrow(RangeError);
  });

  test('opens via the device and via the system call', (context) => {
    for (const via of ['device', 'syscall'] as const) {
      using uffd = openOrSkip(context, { via });
      expect(uffd.fd).toBeGreaterThan(2);
    }
  });

  test('closing twice is once, and verbs refuse afterwards', (context) => {
    const uffd = openOrSkip(context, {});
    uffd.close();
    uffd.close();
    expect(() => uffd.register(0, PAGE, 1)).toThrow(expect.objectContaining({ code: 'CLOSED' }));
    expect(uffd.port.copy(0, 0, PAGE)).toBe(-ERRNO.EBADF);
    expect(uffd.port.read()).toBe(-ERRNO.EBADF);
  });
});

describe('register', () => {
  test('returns the ioctls of the range: minor memory has CONTINUE, anonymous has MOVE', (context) => {
    using uffd = openOrSkip(context, { features: UFFD_FEATURE.MINOR_SHMEM }, 'MINOR_SHMEM');
    using anonymous = mapMemory({ kind: 'anonymous', length: PAGE });
    using shmem = mapMemory({ kind: 'shmem', length: PAGE });
    const missing = uffd.register(anonymous.address, PAGE, UFFD_REGISTER_MODE.MISSING);
    const minor = uffd.register(shmem.address, PAGE, UFFD_REGISTER_MODE.MINOR);
    expect(missing).toContain('COPY');
    expect(missing).toContain('ZEROPAGE');
    expect(missing).not.toContain('CONTINUE');
    expect(minor).toContain('CONTINUE');
  });

  test('a range owned by another userfaultfd is ALREADY_REGISTERED', (context) => {
    using first = openOrSkip(context, {});
    using second = Userfaultfd.open();
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    first.register(memory.address, PAGE, UFFD_REGISTER_MODE.MISSING);
    const again = (): unknown => second.register(memory.address, PAGE, UFFD_REGISTER_MODE.MISSING);
    expect(again).toThrow(expect.objectContaining({ code: 'ALREADY_REGISTERED', errno: ERRNO.EBUSY }));
    first.unregister(memory.address, PAGE);
    expect(again).not.toThrow();
  });

  test('minor on anonymous memory is NOT_SUPPORTED, an unknown mode a RangeError', (context) => {
    using uffd = openOrSkip(context, { features: UFFD_FEATURE.MINOR_SHMEM }, 'MINOR_SHMEM');
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    const minor = (): unknown => uffd.register(memory.address, PAGE, UFFD_REGISTER_MODE.MINOR);
    expect(minor).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED', errno: ERRNO.EINVAL }));
    expect(() => uffd.register(memory.address, PAGE, 1 << 8)).toThrow(RangeError);
  });
});

describe('missing faults', () => {
  test('copy wakes the toucher, who reads the contents', async (context) => {
    await using s = await scene(context, { features: UFFD_FEATURE.THREAD_ID, needs: ['THREAD_ID'] });
    using source = pageOf(0x5a);
    const target = s.memory.address + 3 * PAGE;
    const value = s.toucher.load(target + 17);
    const fault = takeFault(s.uffd);
    expect(fault).toMatchObject({
      fault: 'missing',
      write: false,
      address: target,
      thread: s.toucher.thread,
    });
    expect(s.uffd.port.eventNumber(0)).toBe(UFFD_EVENT.PAGEFAULT);
    expect(s.uffd.port.faultAddress(0)).toBe(target);
    expect(s.uffd.port.faultThread(0)).toBe(s.toucher.thread);
    expect(s.uffd.port.copy(target, source.address, PAGE)).toBe(0);
    expect(s.uffd.port.done).toBe(PAGE);
    expect(await value).toBe(0x5a);
  });

  test('a store is a write fault; zeropage answers it', async (context) => {
    await using s = await scene(context);
    const value = s.toucher.store(s.memory.address, 9);
    expect(takeFault(s.uffd)).toMatchObject({ fault: 'missing', write: true, address: s.memory.address });
    expect(s.uffd.port.zeropage(s.memory.address, 2 * PAGE)).toBe(0);
    expect(s.uffd.port.done).toBe(2 * PAGE);
    await value;
    expect(load8(s.memory.address)).toBe(9);
    expect(load8(s.memory.address + PAGE)).toBe(0);
  });

  test('a kernel access waits too, unless the descriptor is user-mode-only', async (context) => {
    await using s = await scene(context);
    using source = pageOf(0x77);
    const value = s.toucher.kernelLoad(s.memory.address);
    expect(takeFault(s.uffd).fault).toBe('missing');
    s.uffd.port.copy(s.memory.address, source.address, PAGE);
    expect(await value).toBe(0x77);

    await using user = await scene(context, { userModeOnly: true });
    expect(await user.toucher.kernelLoad(user.memory.address)).toBe(-ERRNO.EFAULT);
  });

  test('many faults come in one read', async (context) => {
    await using s = await scene(context);
    await using second = await Toucher.start();
    using source = pageOf(1);
    const values = [s.toucher.load(s.memory.address), second.load(s.memory.address + PAGE)];
    const seen = new Set<number>();
    while (seen.size < 2)
      for (const event of take(s.uffd)) if (event.kind === 'fault') seen.add(event.address);
    for (const address of seen) expect(s.uffd.port.copy(address, source.address, PAGE)).toBe(0);
    expect(await Promise.all(values)).toEqual([1, 1]);
  });

  test('EEXIST wakes nobody: WAKE does', async (context) => {
    await using s = await scene(context);
    using source = pageOf(3);
    const target = s.memory.address;
    const value = s.toucher.load(target);
    takeFault(s.uffd);
    expect(s.uffd.port.copy(target, source.address, PAGE, UFFD_COPY_MODE.DONTWAKE)).toBe(0);
    expect(s.uffd.port.copy(target, source.address, PAGE)).toBe(-ERRNO.EEXIST);
    expect(s.uffd.port.done).toBe(0);
    s.uffd.wake(target, PAGE);
    expect(await value).toBe(3);
  });

  test('a copy that meets a present page stops there and says how far it came', (context) => {
    using uffd = openOrSkip(context, {});
    using memory = mapMemory({ kind: 'anonymous', length: 4 * PAGE, transparentHugePages: false });
    using source = mapMemory({ kind: 'anonymous', length: 4 * PAGE });
    uffd.register(memory.address, memory.length, UFFD_REGISTER_MODE.MISSING);
    expect(uffd.port.copy(memory.address + 2 * PAGE, source.address, PAGE)).toBe(0);
    expect(uffd.port.copy(memory.address, source.address, 4 * PAGE)).toBe(-ERRNO.EAGAIN);
    expect(uffd.port.done).toBe(2 * PAGE);
  });

  test('a copy from unreadable memory is EFAULT and installs nothing', (context) => {
    using uffd = openOrSkip(context, {});
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    using hole = mapMemory({ kind: 'reserved', length: PAGE });
    uffd.register(memory.address, PAGE, UFFD_REGISTER_MODE.MISSING);
    expect(uffd.port.copy(memory.address, hole.address, PAGE)).toBe(-ERRNO.EFAULT);
    expect(uffd.port.done).toBe(0);
    expect([...memory.residency()]).toEqual([0]);
  });
});

describe('other verbs', () => {
  test('continue maps what the page cache holds', async (context) => {
    const options: SceneOptions = {
      kind: 'shmem',
      mode: UFFD_REGISTER_MODE.MINOR,
      features: UFFD_FEATURE.MINOR_SHMEM,
      needs: ['MINOR_SHMEM'],
    };
    await using s = await scene(context, options);
    using alias = s.memory.alias();
    alias.bytes(0, PAGE).fill(0x42);
    const value = s.toucher.load(s.memory.address + 5);
    expect(takeFault(s.uffd)).toMatchObject({ fault: 'minor', address: s.memory.address });
    expect(s.uffd.port.continue(s.memory.address, PAGE)).toBe(0);
    expect(s.uffd.port.done).toBe(PAGE);
    expect(await value).toBe(0x42);
    expect(s.uffd.port.continue(s.memory.address + PAGE, PAGE), 'no page there').toBe(-ERRNO.EFAULT);
  });

  test('move takes the page out of its source', async (context) => {
    await using s = await scene(context, { features: UFFD_FEATURE.MOVE, needs: ['MOVE'] });
    using source = mapMemory({ kind: 'anonymous', length: PAGE, transparentHugePages: false });
    source.bytes().fill(0x66);
    const value = s.toucher.load(s.memory.address);
    takeFault(s.uffd);
    expect(s.uffd.port.move(s.memory.address, source.address, PAGE)).toBe(0);
    expect(s.uffd.port.done).toBe(PAGE);
    expect(await value).toBe(0x66);
    expect(pagemap(source.address, 1)[0]?.present).toBe(false);
  });

  test('poison makes kernel accesses fail', async (context) => {
    await using s = await scene(context, { features: UFFD_FEATURE.POISON, needs: ['POISON'] });
    const value = s.toucher.kernelLoad(s.memory.address);
    takeFault(s.uffd);
    expect(s.uffd.port.poison(s.memory.address, PAGE)).toBe(0);
    expect(s.uffd.port.done).toBe(PAGE);
    expect(isUnreachable(await value)).toBe(true);
  });

  test('SIGBUS mode fails kernel accesses at once and delivers nothing', async (context) => {
    await using s = await scene(context, { features: UFFD_FEATURE.SIGBUS, needs: ['SIGBUS'] });
    expect(await s.toucher.kernelLoad(s.memory.address)).toBe(-ERRNO.EFAULT);
    expect(s.uffd.port.read()).toBe(-ERRNO.EAGAIN);
  });

  test('write protection stops a store until it is lifted', async (context) => {
    const { MISSING, WP } = UFFD_REGISTER_MODE;
    const needs = ['PAGEFAULT_FLAG_WP'] as const;
    await using s = await scene(context, {
      mode: MISSING | WP,
      features: UFFD_FEATURE.PAGEFAULT_FLAG_WP,
      needs,
    });
    using source = pageOf(0x11);
    const { port } = s.uffd;
    expect(port.copy(s.memory.address, source.address, PAGE, UFFD_COPY_MODE.WP)).toBe(0);
    expect(pagemap(s.memory.address, 1)[0]).toMatchObject({ present: true, writeProtected: true });
    expect(await s.toucher.load(s.memory.address)).toBe(0x11);
    const stored = s.toucher.store(s.memory.address, 0x22);
    expect(takeFault(s.uffd)).toMatchObject({
      fault: 'write-protect',
      write: true,
      address: s.memory.address,
    });
    expect(load8(s.memory.address)).toBe(0x11);
    expect(port.writeprotect(s.memory.address, PAGE, 0)).toBe(0);
    await stored;
    expect(load8(s.memory.address)).toBe(0x22);
    expect(port.writeprotect(s.memory.address, PAGE, UFFD_WRITEPROTECT_MODE.WP)).toBe(0);
    expect(pagemap(s.memory.address, 1)[0]?.writeProtected).toBe(true);
  });

  test('read-write protection stops a load until it is lifted', async (context) => {
    const { MISSING, RWP } = UFFD_REGISTER_MODE;
    await using s = await scene(context, { mode: MISSING | RWP, features: UFFD_FEATURE.RWP, needs: ['RWP'] });
    using source = pageOf(0x51);
    const { port } = s.uffd;
    expect(port.copy(s.memory.address, source.address, PAGE)).toBe(0);
    expect(port.rwprotect(s.memory.address, PAGE, UFFD_RWPROTECT_MODE.RWP)).toBe(0);
    const value = s.toucher.load(s.memory.address);
    expect(takeFault(s.uffd)).toMatchObject({ fault: 'rwp', write: false, address: s.memory.address });
    expect(port.rwprotect(s.memory.address, PAGE, 0)).toBe(0);
    expect(await value).toBe(0x51);
  });

  test('move refuses a hole in its source unless holes are allowed', (context) => {
    using uffd = openOrSkip(context, { features: UFFD_FEATURE.MOVE }, 'MOVE');
    using memory = mapMemory({ kind: 'anonymous', length: 2 * PAGE, transparentHugePages: false });
    using source = mapMemory({ kind: 'anonymous', length: 2 * PAGE, transparentHugePages: false });
    source.bytes(PAGE, PAGE).fill(1);
    uffd.register(memory.address, 2 * PAGE, UFFD_REGISTER_MODE.MISSING);
    const { port } = uffd;
    expect(port.move(memory.address, source.address, 2 * PAGE)).toBe(-ERRNO.ENOENT);
    expect(port.move(memory.address, source.address, 2 * PAGE, UFFD_MOVE_MODE.ALLOW_SRC_HOLES)).toBe(0);
    expect(port.done).toBe(2 * PAGE);
    expect([...memory.residency()]).toEqual([0, 1]);
  });

  test('exact addresses keep the offset in the page', async (context) => {
    await using s = await scene(context, { features: UFFD_FEATURE.EXACT_ADDRESS, needs: ['EXACT_ADDRESS'] });
    const value = s.toucher.load(s.memory.address + 123);
    expect(takeFault(s.uffd).address).toBe(s.memory.address + 123);
    s.uffd.port.zeropage(s.memory.address, PAGE);
    expect(await value).toBe(0);
  });

  test('continue may install write-protected', async (context) => {
    const features = UFFD_FEATURE.MINOR_SHMEM | UFFD_FEATURE.WP_HUGETLBFS_SHMEM;
    using uffd = openOrSkip(context, { features }, 'MINOR_SHMEM', 'WP_HUGETLBFS_SHMEM');
    using memory = mapMemory({ kind: 'shmem', length: PAGE });
    using alias = memory.alias();
    alias.bytes().fill(1);
    uffd.register(memory.address, PAGE, UFFD_REGISTER_MODE.MINOR | UFFD_REGISTER_MODE.WP);
    expect(uffd.port.continue(memory.address, PAGE, UFFD_CONTINUE_MODE.WP)).toBe(0);
    expect(pagemap(memory.address, 1)[0]).toMatchObject({ present: true, writeProtected: true });
  });

  test('huge pages are copied whole', async (context) => {
    const huge = 0x20_0000;
    using _pool = needHugePages(context, 2, huge);
    await using s = await scene(context, { kind: 'hugetlb', pages: 1, needs: ['MISSING_HUGETLBFS'] });
    using source = mapMemory({ kind: 'anonymous', length: huge });
    source.bytes().fill(0x3c);
    const value = s.toucher.load(s.memory.address + 12345);
    expect(takeFault(s.uffd).address).toBe(s.memory.address);
    expect(s.uffd.port.zeropage(s.memory.address, huge), 'hugetlb has no zero page').toBe(-ERRNO.EINVAL);
    expect(s.uffd.port.copy(s.memory.address, source.address, huge)).toBe(0);
    expect(await value).toBe(0x3c);
  });
});

describe('layout events', () => {
  const options = {
    features: UFFD_FEATURE.EVENT_REMOVE | UFFD_FEATURE.EVENT_UNMAP,
    needs: ['EVENT_REMOVE', 'EVENT_UNMAP'],
  } as const;

  test('remove is announced; until it is read, copy answers EAGAIN with nothing done', async (context) => {
    await using s = await scene(context, options);
    using source = pageOf(8);
    const { port } = s.uffd;
    expect(port.copy(s.memory.address, source.address, PAGE)).toBe(0);
    const removed = s.toucher.advise(s.memory.address, 2 * PAGE, MADV.DONTNEED);
    using poller = new Poller([s.uffd.fd]);
    expect(poller.wait(DEADLINE_MS)).toBe(1);
    expect(port.copy(s.memory.address + 4 * PAGE, source.address, PAGE)).toBe(-ERRNO.EAGAIN);
    expect(port.done).toBe(0);
    expect(take(s.uffd)).toEqual([
      { kind: 'remove', start: s.memory.address, end: s.memory.address + 2 * PAGE },
    ]);
    expect(await removed).toBe(0);
    expect(port.copy(s.memory.address + 4 * PAGE, source.address, PAGE)).toBe(0);
  });

  test('unmap is announced', async (context) => {
    using doomed = mapMemory({ kind: 'anonymous', length: 2 * PAGE }); // outlives the userfaultfd: its munmap would wait for a reader
    await using s = await scene(context, options);
    const { address } = doomed;
    s.uffd.register(address, 2 * PAGE, UFFD_REGISTER_MODE.MISSING);
    const unmapped = s.toucher.unmap(address + PAGE, PAGE);
    expect(take(s.uffd)).toEqual([{ kind: 'unmap', start: address + PAGE, end: address + 2 * PAGE }]);
    expect(await unmapped).toBe(0);
  });
});

describe('waiting', () => {
  test('an eventfd ends a wait for faults', (context) => {
    using uffd = openOrSkip(context, {});
    using stop = EventFd.create();
    using poller = new Poller([uffd.fd, stop.fd]);
    expect(poller.wait(0)).toBe(0);
    expect(stop.ring()).toBe(0);
    expect(poller.wait(DEADLINE_MS)).toBe(1);
    expect([poller.ready(0), poller.ready(1)]).toEqual([0, POLL.IN]);
    expect(stop.clear()).toBe(1);
    expect(stop.clear()).toBe(0);
    expect(poller.wait(0)).toBe(0);
  });

  test('poll refuses a blocking userfaultfd, as the kernel says', (context) => {
    using uffd = openOrSkip(context, { nonBlocking: false });
    using poller = new Poller([uffd.fd]);
    expect(poller.wait(0)).toBe(1);
    expect(poller.ready(0)).toBe(POLL.ERR);
  });

  test('an fd number that is not open is EBADF, not an exception', () => {
    expect(raw.read(1_000_000, 0, 8)).toBe(-ERRNO.EBADF);
  });
});
