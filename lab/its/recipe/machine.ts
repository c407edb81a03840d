import assert from 'node:assert/strict';
import { type KvmGic } from 'demand-paging/kvm';
import {
  arm64CoreRegister,
  arm64IrqLine,
  arm64SystemRegister,
  type Kvm,
  KVM_MEM,
  type KvmVcpu,
  type KvmVm,
} from 'demand-paging/linux';
import { BOARD, createMachine } from '../../../examples/arm64-gic.js';
import { DEVICE, type Event, MPIDRS, RAM, RAM_BYTES, SAYS } from './guest.js';

const EINTR = 4;
/** What of a vCPU is migrated besides its part of the GIC. */
const MIGRATED = [
  ...Array.from({ length: 31 }, (_, n) => arm64CoreRegister(`x${n}`)),
  ...['pc', 'pstate', 'sp_el1', 'elr_el1', 'spsr'].map((name) =>
    name === 'spsr' ? 0x6030_0000_0010_0000n + 280n / 4n + 2n : arm64CoreRegister(name),
  ),
  arm64SystemRegister(3, 0, 12, 0, 0), // VBAR_EL1
];

/** What a guest said: which interrupt it takes, how many steps it has yet to go, or that it is done. */
export type Said = { readonly what: keyof typeof SAYS; readonly value: number };

/** A VM of the board, whose vCPUs this thread runs. */
export class Machine {
  readonly vm: KvmVm;
  readonly vcpus: readonly KvmVcpu[];
  readonly gic: KvmGic;

  constructor(kvm: Kvm) {
    this.vm = kvm.createVm();
    const { vcpus, gic } = createMachine(this.vm, MPIDRS);
    this.vcpus = vcpus;
    this.gic = gic;
  }

  /** Gives the guest its memory. */
  place(userspace: number): void {
    const flags = KVM_MEM.LOG_DIRTY_PAGES;
    this.vm.setSlot({ slot: 0, flags, gpa: Number(RAM), length: RAM_BYTES, userspace });
  }

  setRegisters(vcpu: number, registers: Readonly<Record<string, bigint>>): void {
    for (const [name, value] of Object.entries(registers))
      this.vcpus[vcpu]!.setRegister(arm64CoreRegister(name), value);
  }

  /** Runs a vCPU until the guest says something. */
  run(vcpu: number): Said {
    const { run } = this.vcpus[vcpu]!;
    assert.equal(this.vcpus[vcpu]!.enter(), 0);
    const exit = run.exit();
    assert.ok(exit.kind === 'mmio' && exit.write, `exit ${exit.kind}`);
    const what = (Object.keys(SAYS) as (keyof typeof SAYS)[]).find((name) => SAYS[name] === exit.gpa);
    assert.ok(what, `a store to 0x${exit.gpa.toString(16)}`);
    return { what, value: new DataView(exit.data.buffer, exit.data.byteOffset).getUint32(0, true) };
  }

  /** Has KVM finish the store that a vCPU got out with: nothing of the vCPU's is left in KVM. */
  park(vcpu: number): void {
    const each = this.vcpus[vcpu]!;
    each.run.immediateExit = true;
    assert.equal(each.enter(), -EINTR);
    each.run.immediateExit = false;
  }

  /** Takes a vCPU's registers over from another machine. */
  resumeFrom(source: Machine): void {
    for (const [vcpu, to] of this.vcpus.entries())
      for (const id of MIGRATED) to.setRegister(id, source.vcpus[vcpu]!.register(id));
  }

  setSpi(intid: number, level: 0 | 1): void {
    this.vm.setIrqLine(arm64IrqLine('SPI', intid), level);
  }

  setPpi(intid: number, vcpu: number, level: 0 | 1): void {
    this.vm.setIrqLine(arm64IrqLine('PPI', intid, vcpu), level);
  }

  /** An MSI of a device: 1 if it was delivered. */
  signal({ its, event }: Event): number {
    return this.vm.signalMsi(Number(BOARD.itses[its]!) + 0x1_0040, event, DEVICE);
  }

  close(): void {
    this.gic.close();
    for (const vcpu of this.vcpus) vcpu.close();
    this.vm.close();
  }
}
