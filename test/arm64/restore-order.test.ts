import { describe, expect, expectTypeOf, it } from 'vitest';
import {
  beginRestore,
  createSavedVgic,
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

async function restore(issue: (action: RestoreAction) => void, prepare?: () => void): Promise<void> {
  const redistributors = await beginRestore(issue).restoreDistributor(SAVED.distributor);
  const its = await redistributors.restoreRedistributors(SAVED.redistributors);
  const tables = await its.restoreItsRegisters(SAVED.its);
  const enable = await tables.restoreTables(prepare);
  const restored = await enable.enableIts();
  await restored.finish();
}

const short = (action: RestoreAction): string =>
  action.group === 'CTRL' || action.group === 'ADDR'
    ? action.group
    : `${action.group === 'DIST_REGS' ? 'GICD' : action.group === 'ITS_REGS' ? 'GITS' : `GICR${action.vcpuId}`}:${action.offset.toString(16)}`;

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
    );
    expect(issued).toEqual([
      'GICD:8',
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
      'GITS:0',
      'GICD:0',
    ]);
  });

  it('brings back a GIC: what it restores equals what was saved, pending bits and queued commands included', async () => {
    const image: Image = {
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
    const { memory } = buildImage(image);
    const { commandBytes } = await import('../../src/arm64/index.js');
    memory
      .page(LAYOUT.queue)
      .set(commandBytes({ kind: 'MAPC', collection: 9, target: 7, valid: true }), 0x40);
    const vgic = new Vgic({ vcpuIds: image.vcpuIds });
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
  }
}
