import { describe, expect, expectTypeOf, it } from 'vitest';
import {
  affinityOf,
  beginRestore,
  commandBytes,
  createSavedVgic,
  planEnableIts,
  planRestore,
  Vgic,
  type BeforeDistributor,
  type BeforeIts,
  type BeforeRedistributors,
  type BeforeTables,
  type RestoreAction,
} from '../../src/arm64/index.js';
import { LatencyMemory } from './guest-memory.js';
import { buildImage, LAYOUT, stateOf, type Image } from './its-image.js';

const SAVED = {
  distributor: { iidr: 0x4b00_343bn, ctlr: 0x52n },
  redistributors: [0, 7].map((vcpuId, vcpu) => ({
    vcpuId,
    propbaser: LAYOUT.configuration | 0x78fn,
    pendbaser: LAYOUT.pending(vcpu) | 0x780n,
    ctlr: 0x7n,
  })),
  its: {
    base: LAYOUT.itsBase,
    iidr: 0x4b00_043bn,
    cbaser: (1n << 63n) | LAYOUT.queue | 0xfn,
    creadr: 0x40n,
    cwriter: 0x60n,
    baser0: (1n << 63n) | LAYOUT.devices | 7n,
    baser1: (1n << 63n) | LAYOUT.collections,
    ctlr: 1n,
  },
};

const ONE_PENDING: Image = {
  vcpuIds: [0, 7],
  indirect: false,
  collections: [
    { id: 0, vcpu: 0 },
    { id: 1, vcpu: 1 },
  ],
  devices: [
    {
      id: 3,
      eventBits: 4,
      entries: [{ event: 2, intid: 8192, collection: 1, configuration: 0xa1, pending: true }],
    },
  ],
};

async function restore(
  issue: (action: RestoreAction) => void,
  prepare?: () => void,
  prepareEnable?: () => void,
): Promise<void> {
  const redistributors = await beginRestore(issue).restoreDistributor(SAVED.distributor);
  const its = await redistributors.restoreRedistributors(SAVED.redistributors);
  const tables = await its.restoreItsRegisters(SAVED.its);
  const enable = await tables.restoreTables(prepare);
  await enable.enableIts(prepareEnable);
}

function short(action: RestoreAction): string {
  switch (action.group) {
    case 'DIST_REGS':
      return `GICD:${action.offset.toString(16)}`;
    case 'REDIST_REGS':
      return `GICR${action.vcpuId}:${action.offset.toString(16)}`;
    case 'ITS_REGS':
      return `GITS:${action.offset.toString(16)}`;
    default:
      return action.group;
  }
}

describe('the documented restore order', () => {
  it('is the only one that can be written down', () => {
    expectTypeOf<BeforeDistributor>().not.toHaveProperty('restoreRedistributors');
    expectTypeOf<BeforeRedistributors>().not.toHaveProperty('restoreItsRegisters');
    expectTypeOf<BeforeIts>().not.toHaveProperty('restoreTables');
    expectTypeOf<BeforeTables>().not.toHaveProperty('enableIts');
    expectTypeOf<
      Awaited<ReturnType<BeforeDistributor['restoreDistributor']>>
    >().toEqualTypeOf<BeforeRedistributors>();
  });

  it('issues the ioctls in that order', async () => {
    const issued: string[] = [];
    await restore(
      (action) => void issued.push(short(action)),
      () => void issued.push('plan'),
      () => void issued.push('plan of the queue'),
    );
    expect(issued).toEqual([
      'GICD:8',
      'GICD:0',
      'GICR0:70',
      'GICR0:78',
      'GICR0:0',
      'GICR7:70',
      'GICR7:78',
      'GICR7:0',
      'ADDR',
      'GITS:80',
      'GITS:4',
      'GITS:90',
      'GITS:88',
      'GITS:100',
      'GITS:108',
      'plan',
      'CTRL',
      'plan of the queue',
      'GITS:0',
    ]);
  });

  it('has the distributor forward before an LPI is pending: restored ones are in the list of their vCPU', async () => {
    const { memory } = buildImage(ONE_PENDING);
    const vgic = new Vgic({ vcpuIds: ONE_PENDING.vcpuIds, mode: 'kvm' });
    await restore((action) => expect(perform(vgic, memory, action)).toBe(0));
    expect([...vgic.lpis()]).toMatchObject([{ intid: 8192, pending: true, enabled: true, apList: 1 }]);
  });

  it('brings back a GIC: what it restores equals what was saved, pending bits and queued commands included', async () => {
    const { memory } = buildImage(ONE_PENDING);
    memory
      .page(LAYOUT.queue)
      .set(commandBytes({ kind: 'MAPC', collection: 9, target: 7, valid: true }), 0x40);
    const vgic = new Vgic({ vcpuIds: ONE_PENDING.vcpuIds });
    await restore((action) => {
      const status = perform(vgic, memory, action);
      if (status !== 0) throw new Error(`${short(action)} gave ${status}`);
    });
    expect(stateOf(vgic)).toMatchObject({
      lpis: [{ intid: 8192, target: 1, pending: true, enabled: true }],
      collections: [
        { id: 0, target: 0 },
        { id: 1, target: 7 },
        { id: 9, target: 7 },
      ],
    });
    expect(vgic.readDistributorRegister(0)).toBe(0x52n);
  });

  it('takes no step twice, and none after a failure', async () => {
    const first = beginRestore(() => undefined);
    await first.restoreDistributor(SAVED.distributor);
    expect(() => first.restoreDistributor(SAVED.distributor)).toThrow(TypeError);
    let issued = 0;
    const failing = restore(() => {
      if (++issued === 4) throw new Error('EBUSY');
    });
    await expect(failing).rejects.toThrow('EBUSY');
    expect(issued).toBe(4);
  });

  it('has its registers copied for planning, and a plan of one ITS leads to that of the next', async () => {
    const image: Image = {
      vcpuIds: [0, 7],
      indirect: false,
      collections: [{ id: 0, vcpu: 0 }],
      devices: [
        {
          id: 3,
          eventBits: 4,
          entries: [{ event: 2, intid: 8192, collection: 0, configuration: 1, pending: true }],
        },
      ],
    };
    const { memory } = buildImage(image);
    const twin = { ...SAVED.its, base: 0x900_0000n, creadr: 0n, cwriter: 0n };
    const vgic = createSavedVgic({ ...SAVED, itses: [SAVED.its, twin] });
    expect(vgic.readItsRegister(0, 0x88).value).toBe(0x60n);
    expect(vgic.readItsRegister(0, 0).value).toBe(0n); // commands are queued, the ITS is disabled
    using first = await planRestore(vgic, new LatencyMemory(memory, 1), 0);
    expect(first.touched.length).toBe(5);
    // The second ITS reads the same tables: its only LPI is mapped by the first, so nothing of it is read.
    using second = await planRestore(first.after, new LatencyMemory(memory, 1), 1);
    expect(second.touched.length).toBe(3);
    expect(vgic.lpiCount).toBe(0);
    expect(() => createSavedVgic({ ...SAVED, itses: [{ ...SAVED.its, creadr: 0x10000n }] })).toThrow(
      /CREADR/,
    );
  });

  it('goes on to the next ITS', async () => {
    const issued: RestoreAction[] = [];
    const its = await (
      await beginRestore((action) => void issued.push(action)).restoreDistributor(SAVED.distributor)
    ).restoreRedistributors([]);
    const restored = await (await (await its.restoreItsRegisters(SAVED.its)).restoreTables()).enableIts();
    await restored.nextIts().restoreItsRegisters(SAVED.its);
    expect(issued.at(-1)).toMatchObject({ device: 'its', its: 1 });
  });

  it('names a vCPU by the MPIDR that was saved, or by the one KVM gives its id', async () => {
    const named: bigint[] = [];
    const [first] = SAVED.redistributors;
    const redistributors = [
      { ...first!, vcpuId: 0x123 },
      { ...first!, vcpuId: 2, mpidr: 0x81_8001_0200n },
    ];
    const begun = beginRestore((action) => void ('mpidr' in action && named.push(action.mpidr)));
    await (await begun.restoreDistributor(SAVED.distributor)).restoreRedistributors(redistributors);
    expect(new Set(named)).toEqual(new Set([0x1203n, 0x81_8001_0200n]));
    expect(affinityOf(0x123)).toBe(0x1203);
  });

  it('is planned step by step: the commands that enabling an ITS executes have a plan of their own', async () => {
    const { memory } = buildImage(ONE_PENDING);
    memory.page(LAYOUT.queue).set(commandBytes({ kind: 'INV', device: 3, event: 2 }), 0x40);
    const vgic = createSavedVgic({ ...SAVED, itses: [SAVED.its] });
    using tables = await planRestore(vgic, new LatencyMemory(memory, 1));
    using enable = await planEnableIts(tables.after, new LatencyMemory(memory, 1));
    expect(enable.touched).toEqual([
      { page: LAYOUT.queue, kind: 'R' },
      { page: LAYOUT.configuration, kind: 'R' },
    ]);
    expect(enable.after.readItsRegister(0, 0x90).value).toBe(0x60n);
  });

  it('is that of a saved GIC made to plan from: as a real device is, in the kernel mode, distributor enabled', () => {
    const vgic = createSavedVgic({ ...SAVED, itses: [SAVED.its] });
    expect(vgic.mode).toBe('kvm');
    expect(createSavedVgic({ ...SAVED, itses: [] }, { mode: undefined as never }).mode).toBe('kvm');
    expect(vgic.readDistributorRegister(0)).toBe(0x52n);
    expect(createSavedVgic({ ...SAVED, itses: [] }, { mode: 'transactional' }).mode).toBe('transactional');
  });
});

function perform(vgic: Vgic, memory: ReturnType<typeof buildImage>['memory'], action: RestoreAction): number {
  switch (action.group) {
    case 'DIST_REGS':
      return vgic.writeDistributorRegister(action.offset, action.value);
    case 'REDIST_REGS': {
      const vcpu = [0, 7].indexOf(action.vcpuId);
      return memory.run(vgic.writeRedistributorRegister(vcpu, action.offset, action.value, action.size));
    }
    case 'ADDR':
      vgic.setItsBase(action.its, action.value);
      return 0;
    case 'ITS_REGS':
      return memory.run(vgic.writeItsRegister(action.its, action.offset, action.value));
    case 'CTRL':
      return memory.run(vgic.itsControl(action.its, action.attribute));
    default:
      throw new Error(`nothing of ${action.group} concerns an LPI`);
  }
}
