import { describe, expect, test } from 'vitest';
import { type DemandPagingError, gpa, type Pager } from '../../../src/api/index.js';
import { ERRNO, MADV, raw } from '../../../src/linux/index.js';
import { backendOf, ENTRY, imageOf, memoryOf, PAGE, PAGED, PAGED_PAGE, pagerOver, PORT, Rig } from './rig.js';

const PAGES = 32;
const at = (index: number): number => PAGED + (PAGED_PAGE.data + index) * PAGE;
const range = (index: number, count = 1) => [{ start: gpa(at(index)), length: BigInt(count * PAGE) }];
const FLAVOURS = ['composite', 'guest-memfd'] as const;

/** What the kernel reads for another thread, through the VMM's mapping. */
async function syscall(rig: Rig, pager: Pager, index: number): Promise<{ value?: bigint; errno?: number }> {
  const address = Number(pager.layout.hvaOf(0)) - PAGED + at(index);
  return (await rig.start<{ value?: bigint; errno?: number }>({ kind: 'syscall', address })).result;
}

describe.for(FLAVOURS)('%s: poisoned pages that are discarded', (flavour) => {
  test.for([
    ['zero', 0n],
    ['refetch', BigInt(at(1))],
  ] as const)('%s', async ([then, expected], context) => {
    using rig = Rig.open(context);
    const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES, PAGE, memoryOf(flavour))], imageOf(PAGES));
    await pager.ensure(range(0));
    await pager.poison(range(0, 3));
    expect(await syscall(rig, pager, 1)).toEqual({ errno: ERRNO.EFAULT });
    await pager.discard(range(1), { then });
    expect(await syscall(rig, pager, 1)).toEqual({ value: expected });
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(at(1)) }),
      backend.exitHandlerToken(0),
    );
    expect(await result).toMatchObject({ handled: 'unhandled', exit: { port: PORT.done }, rax: expected });
    // Its neighbours are what they were.
    expect(await syscall(rig, pager, 0)).toEqual({ value: BigInt(at(0)) });
    expect(await syscall(rig, pager, 2)).toEqual({ errno: ERRNO.EFAULT });
    await pager.poison(range(0, PAGES - PAGED_PAGE.data));
    for (const index of [3, PAGES - PAGED_PAGE.data - 1])
      expect(await syscall(rig, pager, index)).toEqual({ errno: ERRNO.EFAULT });
    await pager.close();
  });
});

test.for([PAGE, 4 * PAGE])(
  'composite: memory discarded without the pager: PAGE_VANISHED, no endless faults (pages of %i bytes)',
  async (pageSize, context) => {
    using rig = Rig.open(context);
    const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES, pageSize)], imageOf(PAGES));
    const stopped = new Promise<DemandPagingError>((resolve) => pager.once('stopped', resolve));
    await pager.ensure(range(0, 8));
    const address = Number(pager.layout.hvaOf(0)) - PAGED + at(1);
    expect(raw.madvise(address, PAGE, MADV.DONTNEED)).toBe(0);
    const touch = await rig.start<{ errno?: number }>({ kind: 'syscall', address });
    expect(await stopped).toMatchObject({ code: 'PAGE_VANISHED' });
    expect(await touch.result).toEqual({ errno: ERRNO.EFAULT });
    const whole = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(at(5)) }), backend.exitHandlerToken(0));
    expect(await whole.result).toMatchObject({ handled: 'unhandled', rax: BigInt(at(5)) });
    await pager.close();
  },
);

describe('memory whose mapping the VMM has split', () => {
  test('composite: installs the whole page', async (context) => {
    using rig = Rig.open(context);
    const { pager } = await splitGuest(rig);
    await pager.ensure([{ start: gpa(PAGED), length: BigInt(PAGES * PAGE) }]);
    expect(pager.complete).toBe(true);
    expect(await syscall(rig, pager, 9)).toEqual({ value: BigInt(at(9)) });
    await pager.close();
  });

  test('composite: poisons the whole page', async (context) => {
    using rig = Rig.open(context);
    const { pager } = await splitGuest(rig);
    await pager.poison([{ start: gpa(PAGED), length: BigInt(PAGES * PAGE) }]);
    expect(Array.from({ length: PAGES }, (_, page) => pager.states.stateOf(page))).toEqual(
      new Array(PAGES).fill('poisoned'),
    );
    for (const index of [0, 5, 9]) expect(await syscall(rig, pager, index)).toEqual({ errno: ERRNO.EFAULT });
    await pager.close();
  });

  async function splitGuest(rig: Rig): Promise<{ pager: Pager }> {
    const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 1 });
    const guest = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    const start = Number(guest.pager.layout.hvaOf(PAGED_PAGE.data + 4));
    expect(raw.madvise(start, 4 * PAGE, MADV.DONTDUMP)).toBe(0);
    return guest;
  }
});
