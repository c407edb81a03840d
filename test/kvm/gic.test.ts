import { describe, expect, it } from 'vitest';
import { DemandPagingError } from '../../src/api/index.js';
import { beginRestore, saveVgic, type SavedVgic } from '../../src/arm64/index.js';
import { KvmGic, type KvmGicSpec } from '../../src/kvm/index.js';
import {
  closeDescriptor,
  ERRNO,
  KVM_DEV_ARM_CTRL,
  KVM_DEV_ARM_VGIC_GRP,
  KVM_DEV_TYPE,
  KvmDevice,
  makePipe,
  isCloseOnExec,
} from '../../src/linux/index.js';
import { WHOLE_GIC } from '../arm64/whole-gic.js';
import { FakeGic } from './fake-gic.js';

const GROUP = KVM_DEV_ARM_VGIC_GRP;
const SPEC: KvmGicSpec = {
  distributor: 0x800_0000n,
  redistributors: 0x90a_0000n,
  itses: [undefined, undefined],
  nrIrqs: WHOLE_GIC.distributor.nrIrqs,
};
const VCPUS = WHOLE_GIC.redistributors;

function start(spec: Partial<KvmGicSpec> = {}): { readonly fake: FakeGic; readonly gic: KvmGic } {
  const fake = new FakeGic(VCPUS);
  const gic = KvmGic.create(fake, { ...SPEC, ...spec });
  fake.log.length = 0;
  return { fake, gic };
}

async function restore({ distributor, redistributors, itses }: SavedVgic, gic: KvmGic): Promise<void> {
  const begun = await beginRestore(gic.restoreIssuer).restoreDistributor(distributor);
  let its = await begun.restoreRedistributors(redistributors);
  for (const registers of itses) {
    const tables = await its.restoreItsRegisters(registers);
    its = (await (await tables.restoreTables()).enableIts()).nextIts();
  }
}

const save = (gic: KvmGic): Promise<SavedVgic> =>
  saveVgic({ vcpus: VCPUS, itses: gic.itses.length }, gic.saveIssuer);

/** What is thrown, as a plain object. */
async function failure(action: () => unknown): Promise<DemandPagingError> {
  try {
    await action();
  } catch (error) {
    if (error instanceof DemandPagingError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

const redistributor = (vcpu: number, offset: number, size: 4 | 8) =>
  ({ device: 'gic', group: 'REDIST_REGS', ...naming(vcpu), offset, size }) as const;
const naming = (vcpu: number) => ({ vcpuId: VCPUS[vcpu]!.vcpuId, mpidr: VCPUS[vcpu]!.mpidr });

describe('a GIC behind device attributes', () => {
  it('comes back from its save whole, on a GIC that is new', async () => {
    const { gic } = start();
    await restore(WHOLE_GIC, gic);
    const saved = await save(gic);
    expect(saved).toEqual({ ...WHOLE_GIC, itses: WHOLE_GIC.itses.map((its) => ({ ...its, ctlr: 1n })) });
    const other = start();
    await restore(saved, other.gic);
    expect(await save(other.gic)).toEqual(saved);
  });

  it('comes back whole on a GIC that was in use: what was enabled or active there is not any more', async () => {
    const { fake, gic } = start();
    for (const offset of [0x104n, 0x108n, 0x304n, 0x308n]) fake.fill(offset, GROUP.DIST_REGS);
    for (const { mpidr } of VCPUS)
      for (const offset of [0x1_0100n, 0x1_0300n])
        fake.fill(
          (((mpidr >> 8n) & 0xff00_0000n) | (mpidr & 0xff_ffffn)) * 0x1_0000_0000n + offset,
          GROUP.REDIST_REGS,
        );
    await restore(WHOLE_GIC, gic);
    expect((await save(gic)).distributor).toEqual(WHOLE_GIC.distributor);
    expect((await save(gic)).redistributors).toEqual(WHOLE_GIC.redistributors);
  });

  it('has a redistributor register of 64 bits set as two u32, and one of an ITS as a u64 whatever it has', () => {
    const { fake, gic } = start({ itses: [0x808_0000n] });
    const affinity = 0x7f00_0200_0000_0000n; // Aff3 0x7f, Aff1 2
    expect(gic.trySet(redistributor(1, 0x78, 8), 0x4002_0000_8001_0780n)).toBe(0);
    expect(gic.trySet({ device: 'its', its: 0, group: 'ITS_REGS', offset: 0, size: 4 }, 0x8000_0001n)).toBe(
      0,
    );
    expect(fake.log).toEqual([
      { device: 'gic', group: GROUP.REDIST_REGS, attribute: affinity | 0x78n, value: 0x8001_0780n },
      { device: 'gic', group: GROUP.REDIST_REGS, attribute: affinity | 0x7cn, value: 0x4002_0000n },
      { device: 'its', group: GROUP.ITS_REGS, attribute: 0n, value: 0x8000_0001n },
    ]);
    expect(gic.tryGet(redistributor(1, 0x78, 8))).toEqual({ status: 0, value: 0x4002_0000_8001_0780n });
  });

  it('has a register of two halves left as it is in the second where the first is refused', () => {
    const { fake, gic } = start();
    fake.vcpuRuns = true;
    expect(gic.trySet(redistributor(0, 0x78, 8), 1n)).toBe(-ERRNO.EBUSY);
    expect(fake.log.length).toBe(1);
    expect(gic.tryGet(redistributor(0, 0x78, 8))).toEqual({ status: -ERRNO.EBUSY, value: 0n });
  });

  it('is created with every ITS before a register is set, and initialised last', () => {
    const fake = new FakeGic(VCPUS);
    const regions = [
      { base: 0x90a_0000n, count: 1 },
      { base: 0xa00_0000n, count: 123 },
    ];
    KvmGic.create(fake, { ...SPEC, itses: [0x808_0000n, 0x80a_0000n], redistributors: regions });
    const { ARM_VGIC_V3, ARM_VGIC_ITS } = KVM_DEV_TYPE;
    expect(fake.created).toEqual([ARM_VGIC_V3, ARM_VGIC_ITS, ARM_VGIC_ITS]);
    const init = BigInt(KVM_DEV_ARM_CTRL.VGIC_CTRL_INIT);
    expect(fake.log.map(({ device, group, attribute, value }) => [device, group, attribute, value])).toEqual([
      ['gic', GROUP.NR_IRQS, 0n, 96n],
      ['gic', GROUP.ADDR, 2n, 0x800_0000n],
      ['gic', GROUP.ADDR, 5n, 0x0010_0000_090a_0000n],
      ['gic', GROUP.ADDR, 5n, 0x07b0_0000_0a00_0001n],
      ['its', GROUP.ADDR, 4n, 0x808_0000n],
      ['its', GROUP.ADDR, 4n, 0x80a_0000n],
      ['gic', GROUP.CTRL, init, 0n],
      ['its', GROUP.CTRL, init, 0n],
      ['its', GROUP.CTRL, init, 0n],
    ]);
  });

  it('leaves no device open, wherever its creation fails', () => {
    const steps = 3 + 6;
    for (let place = 0; place < steps; place++) {
      const fake = new FakeGic(VCPUS);
      fake.failAt = [place < 3 ? place : place + 1, ERRNO.EINVAL];
      expect(() => KvmGic.create(fake, SPEC), `step ${place}`).toThrow(DemandPagingError);
      expect(fake.open, `step ${place}`).toBe(0);
    }
  });

  it('carries each ioctl out as it is told to', () => {
    const { fake, gic } = start();
    let inside = 0;
    const during = <T>(body: () => T): T => {
      inside++;
      return body();
    };
    const guarded = new KvmGic(gic.gic, gic.itses, { during });
    guarded.restoreIssuer({ ...redistributor(0, 0x70, 8), value: 0n });
    guarded.restoreIssuer({ device: 'its', its: 1, group: 'CTRL', attribute: 2 });
    expect(inside).toBe(fake.log.length);
    expect(inside).toBe(4); // one of them to see whose MPIDR it is
  });

  it('takes an ITS that is at its base already, and no other base', async () => {
    const { gic } = start({ itses: [0x808_0000n] });
    const place = (value: bigint): void =>
      gic.restoreIssuer({ device: 'its', its: 0, group: 'ADDR', value, size: 8 });
    expect(place(0x808_0000n)).toBeUndefined();
    expect(await failure(() => place(0x80a_0000n))).toMatchObject({ code: 'KERNEL', errno: ERRNO.EEXIST });
  });

  it('over borrowed descriptors leaves them open', () => {
    const [reader, writer] = makePipe();
    const gic = new KvmGic(KvmDevice.borrow(reader), [KvmDevice.borrow(writer)]);
    gic.close();
    expect(gic.trySet(redistributor(0, 0, 4), 0n)).toBe(-ERRNO.EBADF);
    expect([reader, writer].map((fd) => isCloseOnExec(fd))).toEqual([true, true]);
    closeDescriptor(reader);
    closeDescriptor(writer);
  });
});

describe('a step that KVM refuses', () => {
  it.each([
    [
      'a vCPU in KVM_RUN',
      'GICR_PROPBASER of vCPU 0',
      (gic: KvmGic, fake: FakeGic) => {
        gic.restoreIssuer({ ...redistributor(0, 0x70, 8), value: 0n });
        fake.vcpuRuns = true;
        return gic.restoreIssuer({ ...redistributor(0, 0x70, 8), value: 0n });
      },
      { code: 'KERNEL', errno: ERRNO.EBUSY, syscall: 'ioctl KVM_SET_DEVICE_ATTR' },
    ],
    [
      'an MPIDR that no vCPU has',
      'MPIDR_EL1',
      (gic: KvmGic) => gic.saveIssuer({ ...redistributor(0, 0x70, 8), mpidr: 5n }),
      { code: 'KERNEL', errno: ERRNO.EINVAL, syscall: 'ioctl KVM_GET_DEVICE_ATTR' },
    ],
    [
      'a register of an ITS without a base',
      'GITS_CBASER of ITS 1',
      (gic: KvmGic) => gic.saveIssuer({ device: 'its', its: 1, group: 'ITS_REGS', offset: 0x80, size: 8 }),
      { code: 'NOT_SUPPORTED', errno: ERRNO.ENXIO, syscall: 'ioctl KVM_GET_DEVICE_ATTR' },
    ],
    [
      'tables outside the memslots',
      'ITS_RESTORE_TABLES of ITS 1',
      (gic: KvmGic, fake: FakeGic) => {
        fake.commandStatus = -ERRNO.EFAULT;
        return gic.restoreIssuer({ device: 'its', its: 1, group: 'CTRL', attribute: 2 });
      },
      { code: 'KERNEL', errno: ERRNO.EFAULT, syscall: 'ioctl KVM_SET_DEVICE_ATTR' },
    ],
    [
      'LPIs that a GICv4 holds',
      'ITS_SAVE_TABLES of ITS 0',
      (gic: KvmGic, fake: FakeGic) => {
        fake.commandStatus = -ERRNO.EACCES;
        return gic.saveIssuer({ device: 'its', its: 0, group: 'CTRL', attribute: 1 });
      },
      { code: 'NOT_SUPPORTED', errno: ERRNO.EACCES, syscall: 'ioctl KVM_SET_DEVICE_ATTR' },
    ],
    [
      'an active priorities register that is none here',
      'ICC_AP1R3_EL1 of vCPU 1',
      (gic: KvmGic, fake: FakeGic) => {
        gic.restoreIssuer({ ...redistributor(1, 0x70, 8), value: 0n });
        fake.failAt = [fake.log.length + fake.created.length + 1, ERRNO.EINVAL];
        const register = (3 << 14) | (12 << 7) | (9 << 3) | 3;
        return gic.restoreIssuer({
          device: 'gic',
          group: 'CPU_SYSREGS',
          ...naming(1),
          register,
          size: 8,
          value: 0n,
        });
      },
      { code: 'KERNEL', errno: ERRNO.EINVAL, syscall: 'ioctl KVM_SET_DEVICE_ATTR' },
    ],
  ] as const)('%s: the error has the errno and names it: %s', async (_, name, step, expected) => {
    const { fake, gic } = start();
    const error = await failure(() => step(gic, fake));
    expect(error).toMatchObject(expected);
    expect(error.message).toContain(name);
    expect(error.hint).toBeTypeOf('string');
  });

  it('stops the restore there', async () => {
    const { fake, gic } = start();
    const place = 40;
    fake.failAt = [place + fake.created.length, ERRNO.EINVAL];
    expect(await failure(() => restore(WHOLE_GIC, gic))).toMatchObject({ errno: ERRNO.EINVAL });
    expect(fake.log.length).toBe(place);
  });

  it('is not left to KVM where KVM would take it without a word: another number of interrupts', async () => {
    const { fake, gic } = start({ nrIrqs: 64 });
    const error = await failure(() => restore(WHOLE_GIC, gic));
    expect(error).toMatchObject({ code: 'NOT_SUPPORTED' });
    expect(error.hint).toContain('nrIrqs: 96');
    expect(fake.log.every(({ value }) => value === undefined)).toBe(true);
  });

  it('is not left to KVM where KVM would take it without a word: MPIDRs that other vCPUs have here', async () => {
    const { gic } = start();
    const [first, second] = WHOLE_GIC.redistributors;
    const swapped = [
      { ...first!, mpidr: second!.mpidr },
      { ...second!, mpidr: first!.mpidr },
    ];
    const error = await failure(() => restore({ ...WHOLE_GIC, redistributors: swapped }, gic));
    expect(error).toMatchObject({ code: 'NOT_SUPPORTED' });
    expect(error.message).toContain('is that of vCPU 1 here');
  });

  it('is misuse where there is no such ITS', () => {
    const { gic } = start();
    expect(() => gic.tryCommand({ device: 'its', its: 2, group: 'CTRL', attribute: 1 })).toThrow(RangeError);
  });
});
