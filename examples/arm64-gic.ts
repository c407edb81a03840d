// arm64-gic.ts
import { release } from 'node:os';
import { DemandPagingError, type Pager } from 'demand-paging';
import {
  beginRestore,
  createSavedVgic,
  kernelQuirks,
  type Plan,
  planEnableIts,
  planMemoryOf,
  planRestore,
  type SavedVgic,
  saveVgic,
  type Vgic,
} from 'demand-paging/arm64';
import { KvmGic } from 'demand-paging/kvm';
import { arm64SystemRegister, type KvmVcpu, type KvmVm, NativeBlock } from 'demand-paging/linux';

const MPIDR_EL1 = arm64SystemRegister(3, 0, 0, 0, 5);

/** The board, the same on both hosts: where its GIC is, and how many interrupts besides LPIs it has. */
export const BOARD = {
  distributor: 0x800_0000n,
  redistributors: 0x80a_0000n,
  itses: [0x808_0000n, 0x900_0000n],
  nrIrqs: 96,
} as const;

/**
 * vCPUs first, each with the MPIDR_EL1 that it had, then the GIC with every ITS. Nothing may have run yet.
 */
export function createMachine(vm: KvmVm, mpidrs: readonly bigint[]): { vcpus: KvmVcpu[]; gic: KvmGic } {
  const target = vm.preferredTarget();
  const vcpus = mpidrs.map((mpidr, id) => {
    const vcpu = vm.createVcpu(id);
    vcpu.initialise(target);
    vcpu.setRegister(MPIDR_EL1, mpidr);
    return vcpu;
  });
  return { vcpus, gic: KvmGic.create(vm, BOARD) };
}

/**
 * On the source, once no vCPU is in KVM_RUN and no device raises an interrupt. It writes tables into guest
 * memory, so the last pass of the dirty log comes after it.
 */
export function saveGic(gic: KvmGic, vcpus: readonly KvmVcpu[]): Promise<SavedVgic> {
  const named = vcpus.map((vcpu, vcpuId) => ({ vcpuId, mpidr: vcpu.register(MPIDR_EL1) }));
  return saveVgic({ vcpus: named, itses: gic.itses.length }, gic.saveIssuer);
}

/** A pass of the dirty log: the pages of a slot that were written since the last one. */
export function dirtyPages(vm: KvmVm, slot: number, pages: number): number[] {
  using bitmap = new NativeBlock(Math.ceil(pages / 64) * 8);
  vm.dirtyLog(slot, bitmap.address);
  return Array.from({ length: pages }, (_, page) => page).filter(
    (page) => ((bitmap.bytes[page >>> 3]! >>> (page & 7)) & 1) === 1,
  );
}

/**
 * On the target, before any vCPU runs, with as many of the guest's pages missing as like. Each ioctl that
 * walks guest memory is planned: its pages are there and held before it is issued, and what it will return is
 * known.
 */
export async function restoreGic(gic: KvmGic, saved: SavedVgic, pager: Pager): Promise<void> {
  const memory = planMemoryOf(pager);
  let twin = createSavedVgic(saved, { quirks: kernelQuirks(release()) });
  const redistributors = await beginRestore(gic.restoreIssuer).restoreDistributor(saved.distributor);
  let next = await redistributors.restoreRedistributors(saved.redistributors);
  for (const [its, registers] of saved.itses.entries()) {
    const tables = await next.restoreItsRegisters(registers);
    const enable = await planned(await planRestore(twin, memory, its), () => tables.restoreTables());
    twin = enable.twin;
    if ((registers.ctlr & 1n) === 0n) {
      next = (await enable.result.enableIts()).nextIts();
      continue;
    }
    // Commands that were queued when the VM was saved are executed in this ioctl.
    const done = await planned(await planEnableIts(twin, memory, its), () => enable.result.enableIts());
    twin = done.twin;
    next = done.result.nextIts();
  }
  // Now KVM_SET_GSI_ROUTING and KVM_IRQFD of devices' MSIs; then the vCPUs may run.
}

/** Carries out what was planned. If it is going to fail it is not begun: the source still has everything. */
async function planned<T>(plan: Plan, carryOut: () => Promise<T>): Promise<{ twin: Vgic; result: T }> {
  try {
    if (plan.status !== 0 || !plan.complete)
      throw new DemandPagingError('BAD_IMAGE', 'KVM would not restore these tables', { errno: -plan.status });
    return { result: await carryOut(), twin: plan.after };
  } finally {
    plan.release();
  }
}
