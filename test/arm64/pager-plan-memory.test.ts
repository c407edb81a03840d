import { describe, expect, it } from 'vitest';
import { DemandPagingError, type Gpa, type GpaRange, type Hold } from '../../src/api/index.js';
import { planMemoryOf, planRestore, type HoldingPager } from '../../src/arm64/index.js';
import { type GuestMemory, pageOf } from './guest-memory.js';
import { buildImage, LAYOUT, prepareVgic, type Image } from './its-image.js';

const IMAGE: Image = {
  vcpuIds: [0],
  indirect: false,
  collections: [{ id: 0, vcpu: 0 }],
  devices: [
    {
      id: 7,
      eventBits: 4,
      entries: [{ event: 1, intid: 8192, collection: 0, configuration: 1, pending: true }],
    },
  ],
};

/** A pager whose pages are held before they come, and fail as they are told. */
class FakePager implements HoldingPager {
  readonly held = new Map<bigint, number>();
  readonly here = new Set<bigint>();
  readonly failing = new Map<bigint, 'PAGE_FAILED' | 'STOPPED'>();
  readonly memory: NonNullable<HoldingPager['memory']>;

  constructor(readonly guest: GuestMemory) {
    this.memory = {
      isPresent: ({ start }: GpaRange) => this.here.has(start),
      readSync: (address: Gpa, length: number) => guest.page(address).slice(0, length),
      layout: { regionAt: (gpa: Gpa) => (guest.visible(gpa) ? {} : undefined) },
    } as unknown as NonNullable<HoldingPager['memory']>;
  }

  async hold([range]: readonly GpaRange[]): Promise<Hold> {
    const { start } = range!;
    this.held.set(start, (this.held.get(start) ?? 0) + 1);
    await Promise.resolve();
    const code = this.failing.get(start);
    const release = (): void => void this.held.delete(start);
    if (code !== undefined) {
      release();
      throw new DemandPagingError(code, 'no page');
    }
    this.here.add(start);
    return { ranges: [], release, [Symbol.dispose]: release };
  }
}

describe('planning over a pager', () => {
  it('holds what it planned until it is released', async () => {
    const { memory } = buildImage(IMAGE);
    const pager = new FakePager(memory);
    const plan = await planRestore(prepareVgic(memory, IMAGE), planMemoryOf(pager), 0, { speculation: {} });
    const planned = plan.touched.map(({ page }) => page);
    expect(new Set(pager.held.keys())).toEqual(new Set(planned));
    expect(planned).toContain(pageOf(LAYOUT.collections));
    plan.release();
    expect(pager.held.size).toBe(0);
  });

  it('takes a page that cannot be had for the EFAULT that the kernel would meet', async () => {
    const { memory } = buildImage(IMAGE);
    const pager = new FakePager(memory);
    pager.failing.set(LAYOUT.configuration, 'PAGE_FAILED');
    using plan = await planRestore(prepareVgic(memory, IMAGE), planMemoryOf(pager));
    expect(plan.status).toBe(-14);
  });

  it('rejects when the pager has stopped, and holds nothing', async () => {
    const { memory } = buildImage(IMAGE);
    const pager = new FakePager(memory);
    pager.failing.set(LAYOUT.configuration, 'STOPPED');
    await expect(planRestore(prepareVgic(memory, IMAGE), planMemoryOf(pager))).rejects.toMatchObject({
      code: 'STOPPED',
    });
    expect(pager.held.size).toBe(0);
  });

  it('needs memory of this address space', () => {
    expect(() => planMemoryOf({ memory: undefined, hold: () => Promise.reject(new Error('no')) })).toThrow(
      TypeError,
    );
  });
});
