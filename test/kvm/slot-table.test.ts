import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DirtyPages } from '../../src/kvm/dirty-pages.js';
import { chunkFor, chunksAround, chunksOf, regionOf, type SlotRegion } from '../../src/kvm/slot-region.js';
import { SlotTable, type SlotVm } from '../../src/kvm/slot-table.js';
import { ERRNO, type KvmSlot } from '../../src/linux/index.js';

const PAGE = 4096;
const FIRST_SLOT = 16;
const LIVE_BASE = 2 ** 40;
const MISSING_BASE = 2 ** 41;

/**
 * Memslots as KVM keeps them: none overlaps another, a number names one slot, a change of size is refused.
 */
class Slots implements SlotVm {
  readonly slots = new Map<number, KvmSlot>();
  most = 0;

  trySetSlot(slot: KvmSlot): number {
    if (slot.length === 0) return this.slots.delete(slot.slot) ? 0 : -ERRNO.EINVAL;
    if (this.slots.has(slot.slot)) return -ERRNO.EINVAL;
    for (const { gpa, length } of this.slots.values())
      if (slot.gpa < gpa + length && gpa < slot.gpa + slot.length) return -ERRNO.EEXIST;
    this.slots.set(slot.slot, slot);
    this.most = Math.max(this.most, this.slots.size);
    return 0;
  }

  dirtyLog(): void {}

  /** What the guest finds at an address, and of which file where it is missing. */
  at(gpa: number): KvmSlot | undefined {
    return [...this.slots.values()].find((slot) => gpa >= slot.gpa && gpa < slot.gpa + slot.length);
  }
}

function regionsOf(sizes: readonly number[], chunk: number): SlotRegion[] {
  let page = 0;
  return sizes.map((count, index) => {
    const region = {
      page,
      count,
      chunk,
      pageSize: PAGE,
      gpa: 0x10_0000 + index * 0x100_0000,
      address: LIVE_BASE + page * PAGE,
      whileMissing: MISSING_BASE + page * PAGE,
      guestMemfd: -1,
      guestMemfdOffset: 0,
    };
    page += count;
    return region;
  });
}

test('slot table: the dirty log is unavailable: the slot is deleted', () => {
  class NoLog extends Slots {
    override dirtyLog(): void {
      throw new Error('the VM has a dirty ring');
    }
  }
  const vm = new NoLog();
  const regions = regionsOf([8], 1);
  const log = new DirtyPages(DirtyPages.share(8), 8);
  const table = new SlotTable(vm, regions, { first: FIRST_SLOT, count: 8 }, false, log);
  table.start(-1);
  table.map({ first: 2, count: 2 });
  expect(() => table.clear()).toThrow('dirty ring');
  expect(vm.slots.size).toBe(0);
});

interface Step {
  readonly page: number;
  readonly count: number;
  readonly show: boolean;
}

const steps = fc.array(
  fc.record({ page: fc.nat(), count: fc.integer({ min: 1, max: 40 }), show: fc.boolean() }),
  { maxLength: 60 },
);

/** The whole chunks of a step's pages that are, or are not, mapped yet, as runs in one region. */
function runsOf(
  regions: readonly SlotRegion[],
  mapped: ReadonlySet<number>,
  step: Step,
): { first: number; count: number }[] {
  const total = regions.reduce((sum, { count }) => sum + count, 0);
  const region = regionOf(regions, step.page % total)!;
  const first = step.page % total;
  const count = Math.min(step.count, region.page + region.count - first);
  if (!step.show) return [{ first, count }];
  const { first: from, count: pages } = chunksAround(region, { first, count });
  const runs: { first: number; count: number }[] = [];
  for (let page = from; page < from + pages;) {
    const chunk = chunksAround(region, { first: page, count: 1 });
    const last = runs.at(-1);
    if (!mapped.has(page)) {
      if (last && last.first + last.count === page) last.count += chunk.count;
      else runs.push({ ...chunk });
    }
    page = chunk.first + chunk.count;
  }
  return runs;
}

test.for([false, true])(
  'slot table: any updates: every page lies under one slot, mapped or missing as expected; holes: %s',
  (holes) => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 3 }),
        fc.constantFrom(1, 2, 8, 64),
        steps,
        (sizes, chunk, plan) => {
          const regions = regionsOf(sizes, chunk);
          const limit = regions.reduce((sum, region) => sum + chunksOf(region), 0);
          const vm = new Slots();
          const table = new SlotTable(vm, regions, { first: FIRST_SLOT, count: limit }, holes);
          const mapped = new Set<number>();
          let file = 100;
          table.start(file);
          for (const step of plan) {
            for (const run of runsOf(regions, mapped, step)) {
              if (step.show) {
                table.map(run);
                for (let page = run.first; page < run.first + run.count; page++) mapped.add(page);
              } else {
                const gone = table.vacate(run, ++file);
                for (let page = gone.first; page < gone.first + gone.count; page++) mapped.delete(page);
              }
            }
          }
          for (const region of regions) {
            for (let page = region.page; page < region.page + region.count; page++) {
              const gpa = region.gpa + (page - region.page) * PAGE;
              const slot = vm.at(gpa);
              const base = mapped.has(page) ? LIVE_BASE : MISSING_BASE;
              if (!mapped.has(page) && holes) expect(slot).toBeUndefined();
              else expect(slot!.userspace + gpa - slot!.gpa).toBe(base + page * PAGE);
              if (mapped.has(page)) expect(slot!.guestMemfd).toBeUndefined();
            }
          }
          expect(vm.most).toBeLessThanOrEqual(limit); // never more than a slot a chunk, at any moment
          for (const { slot } of vm.slots.values()) expect(slot).toBeLessThan(FIRST_SLOT + limit);
          table.clear();
          expect(vm.slots.size).toBe(0);
        },
      ),
    );
  },
);

test('slot table: bindAgain: slots of missing pages are bound to another file, others stay', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 3 }),
      fc.constantFrom(1, 8),
      steps,
      fc.nat(),
      fc.nat(),
      (sizes, chunk, plan, from, length) => {
        const regions = regionsOf(sizes, chunk);
        const total = sizes.reduce((sum, count) => sum + count, 0);
        const vm = new Slots();
        const limit = regions.reduce((sum, region) => sum + chunksOf(region), 0);
        const table = new SlotTable(vm, regions, { first: FIRST_SLOT, count: limit }, false);
        const mapped = new Set<number>();
        table.start(100);
        for (const step of plan.filter(({ show }) => show)) {
          for (const run of runsOf(regions, mapped, step)) {
            table.map(run);
            for (let page = run.first; page < run.first + run.count; page++) mapped.add(page);
          }
        }
        const pages = { first: from % total, count: 1 + (length % (total - (from % total))) };
        table.bindAgain(pages, 101);
        for (let page = 0; page < total; page++) {
          const region = regionOf(regions, page)!;
          const slot = vm.at(region.gpa + (page - region.page) * PAGE)!;
          const around = chunksAround(region, { first: page, count: 1 });
          const isAsked =
            around.first < pages.first + pages.count && around.first + around.count > pages.first;
          expect(slot.guestMemfd).toBe(mapped.has(page) ? undefined : isAsked ? 101 : 100);
        }
        expect(vm.most).toBeLessThanOrEqual(limit);
      },
    ),
  );
});

test('slot table: pages mapped one by one: few slots, each page moves only as its slot doubles', () => {
  const pages = 512;
  const [region] = regionsOf([pages], 1) as [SlotRegion];
  const regions = [{ ...region, gpa: 0x20_0000 }];
  const vm = new Slots();
  const table = new SlotTable(vm, regions, { first: FIRST_SLOT, count: pages }, false);
  table.start(100);
  const before = table.changed;
  for (let page = 0; page < pages; page++) table.map({ first: page, count: 1 });
  expect(table.mapped).toEqual([{ first: 0, count: pages }]);
  // A deletion and a creation a page, and a deletion for each joining: as many as there are pages.
  expect(table.changed - before).toBeLessThanOrEqual(3 * pages);
});

test('slot table: neighbours in different 2 MiB blocks: not joined', () => {
  const [region] = regionsOf([1024], 1) as [SlotRegion];
  const vm = new Slots();
  const table = new SlotTable(vm, [{ ...region, gpa: 0x20_0000 }], { first: 0, count: 1024 }, true);
  table.start(-1);
  for (const first of [0, 512]) table.map({ first, count: 512 });
  expect(table.mapped).toHaveLength(2);
});

test('slot table: KVM refuses to delete a slot: the others are deleted', () => {
  const vm = new Slots();
  const table = new SlotTable(vm, regionsOf([8], 1), { first: 0, count: 8 }, false);
  table.start(100);
  vm.slots.delete(3);
  expect(() => table.clear()).toThrow(
    expect.objectContaining({ code: 'KERNEL', errno: ERRNO.EINVAL }) as Error,
  );
  expect(vm.slots.size).toBe(0);
});

test('chunkFor: fewer slots than pages: the smallest chunk that fits', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 100_000 }), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 500 }),
      (sizes, slots) => {
        const regions = sizes.map((pageCount) => ({ pageCount }));
        const chunk = chunkFor(regions, slots);
        expect(chunk === undefined).toBe(sizes.length > slots);
        if (chunk === undefined) return;
        const chunks = (of: number): number => sizes.reduce((sum, pages) => sum + Math.ceil(pages / of), 0);
        expect(chunks(chunk)).toBeLessThanOrEqual(slots);
        if (chunk > 1) expect(chunks(chunk / 2)).toBeGreaterThan(slots);
      },
    ),
  );
});
