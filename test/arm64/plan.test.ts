import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Gpa, Program } from '../../src/api/index.js';
import {
  commandBytes,
  planCommands,
  planEnableLpis,
  planOperation,
  planRestore,
  planSave,
  planSavePending,
  type Plan,
  type PlanOptions,
  type Vgic,
} from '../../src/arm64/index.js';
import { LatencyMemory, pageOf, type GuestMemory } from './guest-memory.js';
import { anyImage } from './image-arbitrary.js';
import { buildImage, LAYOUT, prepareVgic } from './its-image.js';

const SPECULATE: PlanOptions = { speculation: {} };

/** Plans, then runs the real operation, and compares what the two touched. */
async function planThenRun(
  vgic: Vgic,
  memory: GuestMemory,
  operation: (vgic: Vgic) => Program<number>,
  options: PlanOptions,
): Promise<{ plan: Plan; source: LatencyMemory; waits: number }> {
  const source = new LatencyMemory(memory, 1);
  const plan = await planOperation(vgic, source, operation, options);
  expect(source.held).toEqual(
    new Set(plan.touched.filter(({ page }) => !memory.gone.has(page)).map(({ page }) => page)),
  );
  memory.clearTrace();
  const status = memory.run(operation(vgic));
  expect(plan.status).toBe(status);
  expect(plan.complete).toBe(true);
  const real = [...memory.touches].map(([page, kind]) => ({ page, kind }));
  expect(plan.touched.filter(({ page }) => !memory.gone.has(page))).toEqual(real);
  const waits = real.filter(({ page }) => !source.here.has(page)).length;
  plan.release();
  plan.release();
  expect(source.held.size).toBe(0);
  return { plan, source, waits };
}

const scenario = fc.record({
  image: anyImage,
  forwarding: fc.boolean(),
  flips: fc.array(fc.tuple(fc.nat(1000), fc.nat(511), fc.nat(63)), { maxLength: 3 }),
  gone: fc.option(fc.nat(1000), { nil: undefined }),
  mode: fc.constantFrom('kvm' as const, 'transactional' as const),
  options: fc.constantFrom<PlanOptions>(
    {},
    SPECULATE,
    { inFlight: 1 },
    { inFlight: 2, speculation: { maxPages: 20 } },
  ),
});

describe('its-plan-exact', () => {
  it('holds for restores of any image, well-formed or not', async () => {
    await fc.assert(
      fc.asyncProperty(scenario, async ({ image, forwarding, flips, gone, mode, options }) => {
        const { memory } = buildImage(image);
        const pages = [...memory.pages.keys()];
        for (const [page, word, bit] of flips) {
          const gpa = pages[page % pages.length]! + BigInt(word * 8);
          memory.setWord(gpa, memory.word(gpa) ^ (1n << BigInt(bit)));
        }
        const vgic = prepareVgic(memory, { ...image, forwarding, mode, devicePages: 1 });
        if (gone !== undefined) memory.gone.add(pages[gone % pages.length]!);
        const { plan, waits } = await planThenRun(vgic, memory, (each) => each.restoreTables(), options);
        expect(waits).toBe(0);
        if (options.speculation === undefined && flips.length === 0 && gone === undefined) {
          expect(plan.speculated).toEqual([]);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('holds for saves, pending saves, enabling LPIs and commands', async () => {
    await fc.assert(
      fc.asyncProperty(anyImage, fc.constantFrom<PlanOptions>({}, SPECULATE), async (image, options) => {
        const { memory } = buildImage(image);
        const vgic = prepareVgic(memory, { ...image, devicePages: 1 });
        expect(memory.run(vgic.restoreTables())).toBe(0);
        await planThenRun(vgic, memory, (each) => each.saveTables(), options);
        await planThenRun(vgic, memory, (each) => each.savePendingTables(), options);
        memory.run(vgic.writeRedistributorRegister(0, 0, 0n, 4));
        await planThenRun(vgic, memory, (each) => each.writeRedistributorRegister(0, 0, 1n, 4), options);
        memory.run(vgic.writeItsRegister(0, 0, 1n));
        const device = image.devices[0]?.id ?? 1;
        const commands = [
          commandBytes({ kind: 'MAPD', device, eventBits: 5, itt: 0x8200_0000n, valid: true }),
          commandBytes({
            kind: 'MAPTI',
            device,
            event: 3,
            intid: 20000,
            collection: image.collections[0]!.id,
          }),
          commandBytes({ kind: 'INV', device, event: 3 }),
          commandBytes({ kind: 'DISCARD', device, event: 3 }),
          commandBytes({ kind: 'MAPD', device, eventBits: 1, itt: 0n, valid: false }),
        ];
        commands.forEach((bytes, index) => memory.page(LAYOUT.queue).set(bytes, index * 32));
        await planThenRun(vgic, memory, (each) => each.writeItsRegister(0, 0x88, 160n), options);
      }),
      { numRuns: 100 },
    );
  });

  it('has a name for each operation, which plans that operation', async () => {
    const { memory } = buildImage(SMALL);
    const vgic = prepareVgic(memory, SMALL);
    const pagesOf = async (plan: Promise<Plan>): Promise<string[]> => {
      using held = await plan;
      return held.touched.map(({ page, kind }) => `${kind}${(page - LAYOUT.base).toString(16)}`);
    };
    const source = (): LatencyMemory => new LatencyMemory(memory, 1);
    expect(await pagesOf(planRestore(vgic, source()))).toEqual([
      'R50000',
      'R80000',
      'R1000000',
      'R0',
      'R100000',
    ]);
    expect(await pagesOf(planSave(vgic, source()))).toEqual(['W50000']);
    expect(await pagesOf(planSavePending(vgic, source()))).toEqual([]);
    memory.run(vgic.restoreTables());
    expect(await pagesOf(planSave(vgic, source()))).toEqual(['W1000000', 'W80000', 'W50000']);
    expect(await pagesOf(planSavePending(vgic, source()))).toEqual(['R100000']);
    memory.run(vgic.writeRedistributorRegister(0, 0, 0n, 4));
    expect(await pagesOf(planEnableLpis(vgic, source(), 0))).toEqual(['R100000']);
    memory.run(vgic.writeItsRegister(0, 0, 1n));
    memory.page(LAYOUT.queue).set(commandBytes({ kind: 'INVALL', collection: 0 }), 0);
    expect(await pagesOf(planCommands(vgic, source(), 32n))).toEqual(['R70000', 'R0']);
    expect(vgic.readItsRegister(0, 0x90).value).toBe(0n); // a plan changes nothing
  });

  it('is not fooled by an LPI table that lies inside a translation table', async () => {
    // The configuration of the first LPI lies in the page that is the second device's ITT: it is
    // touched as data first, and what it holds decides only later.
    const image = {
      ...SMALL,
      devices: [
        { id: 7, eventBits: 9, entries: [entry(0, 8192)] },
        { id: 9, eventBits: 9, entries: [entry(5, 60000)] },
      ],
    };
    const { memory, itts } = buildImage(image);
    const vgic = prepareVgic(memory, image);
    memory.run(vgic.writeRedistributorRegister(0, 0, 0n, 4));
    memory.run(vgic.writeRedistributorRegister(0, 0x70, itts[1]! | 0xfn, 8));
    memory.run(vgic.writeRedistributorRegister(0, 0, 1n, 4));
    expect(pageOf(itts[1]!)).toBe(itts[1]);
    await planThenRun(vgic, memory, (each) => each.restoreTables(), {});
  });

  it('is bounded on hostile tables, and says so', async () => {
    const { memory } = buildImage({
      ...SMALL,
      devices: Array.from({ length: 200 }, (_, id) => ({ id, eventBits: 16, entries: [] })),
    });
    const vgic = prepareVgic(memory, SMALL);
    const source = new LatencyMemory(memory, 1);
    const plan = await planRestore(vgic, source, 0, { maxPages: 500, speculation: { maxPages: 100 } });
    expect(plan.complete).toBe(false);
    expect(plan.touched.length).toBe(500);
    expect(source.fetched).toBeLessThanOrEqual(600);
    plan.release();
    expect(source.held.size).toBe(0);
  });

  it('rejects with the failure of its memory, holding nothing', async () => {
    const { memory } = buildImage(SMALL);
    const source = new LatencyMemory(memory, 1);
    const failing = Object.assign(Object.create(source) as LatencyMemory, {
      fetch: (pages: readonly Gpa[]) =>
        pages.includes((LAYOUT.itts + 0n) as Gpa)
          ? Promise.reject(new Error('source died'))
          : source.fetch(pages),
    });
    await expect(planRestore(prepareVgic(memory, SMALL), failing)).rejects.toThrow('source died');
    expect(source.held.size).toBe(0);
  });
});

const entry = (event: number, intid: number, collection = 0) => ({
  event,
  intid,
  collection,
  configuration: 0xa1,
  pending: true,
});

const SMALL = {
  vcpuIds: [0],
  indirect: false,
  collections: [{ id: 0, vcpu: 0 }],
  devices: [{ id: 7, eventBits: 5, entries: [entry(0, 8192), entry(9, 8300)] }],
};

describe('plan-survives-removal', () => {
  it('keeps every planned page until the release, however hard the guest tries to remove it', async () => {
    await fc.assert(
      fc.asyncProperty(
        anyImage,
        fc.array(fc.nat(1000), { minLength: 50, maxLength: 50 }),
        async (image, picks) => {
          const { memory } = buildImage(image);
          const vgic = prepareVgic(memory, { ...image, devicePages: 1 });
          const source = new LatencyMemory(memory, 1);
          let turn = 0;
          let refused = 0;
          source.disturb = () => {
            const here = [...source.here];
            const victim = here[picks[turn++ % picks.length]! % Math.max(1, here.length)];
            if (victim !== undefined && !source.remove(victim)) refused++;
          };
          const plan = await planRestore(vgic, source, 0, SPECULATE);
          for (const page of [...source.here]) if (!source.remove(page)) refused++;
          memory.clearTrace();
          expect(memory.run(vgic.restoreTables())).toBe(plan.status);
          for (const page of memory.touches.keys()) expect(source.here.has(page)).toBe(true);
          expect(refused).toBeGreaterThan(0);
          plan.release();
          for (const { page } of plan.touched) expect(source.remove(page)).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('rounds', () => {
  /** 57 344 LPIs on 1792 devices, as a large guest has them. */
  const realistic = {
    vcpuIds: [0, 1, 2, 3],
    indirect: true,
    collections: [0, 1, 2, 3].map((vcpu) => ({ id: vcpu, vcpu })),
    devices: Array.from({ length: 1792 }, (_, index) => ({
      id: index * 8,
      eventBits: 5,
      entries: Array.from({ length: 32 }, (_unused, event) =>
        entry(event, 8192 + index * 32 + event, event % 4),
      ),
    })),
  };

  it('cost one latency each: a plan takes no longer than its rounds, or its pages through the pipe', async () => {
    const { memory } = buildImage(realistic);
    const vgic = prepareVgic(memory, { ...realistic, devicePages: 1 });
    for (const options of [{}, SPECULATE]) {
      const source = new LatencyMemory(memory, 1);
      const plan = await planRestore(vgic, source, 0, options);
      const bound = Math.max(plan.rounds.length, (plan.touched.length + plan.speculated.length) / 64);
      expect(source.now).toBeLessThanOrEqual(1.3 * bound + 1);
      expect(source.maxInFlight).toBeLessThanOrEqual(64);
      expect(plan.rounds.flat().length).toBe(plan.touched.length);
      plan.release();
    }
  });

  it('are ten times fewer with speculation where the kernel scans empty tables page by page', async () => {
    const scans = [
      { ...realistic, devices: [{ id: 3, eventBits: 16, entries: [] }] },
      {
        ...realistic,
        devices: [
          { id: 3, eventBits: 16, entries: [] },
          { id: 9, eventBits: 15, entries: [] },
        ],
      },
      {
        ...realistic,
        devices: [
          { id: 65000, eventBits: 14, entries: [entry(0, 9000), entry(16000, 9001)] },
          { id: 65500, eventBits: 16, entries: [] },
        ],
      },
    ];
    for (const image of scans) {
      const { memory } = buildImage(image);
      const vgic = prepareVgic(memory, { ...image, devicePages: 1 });
      const source = new LatencyMemory(memory, 1);
      const plan = await planRestore(vgic, source, 0, SPECULATE);
      expect(plan.touched.length).toBeGreaterThan(100);
      expect(source.now).toBeLessThanOrEqual(plan.touched.length / 10);
      plan.release();
    }
  });
});
