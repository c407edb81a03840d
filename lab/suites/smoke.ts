import assert from 'node:assert/strict';
import { release } from 'node:os';
import { test } from 'node:test';
import {
  arm64CoreRegister,
  GUEST_MEMFD_SHARED,
  Kvm,
  KVM_DEV_ARM_CTRL,
  KVM_DEV_ARM_VGIC_GRP,
  KVM_DEV_TYPE,
  KVM_VGIC_ADDR_TYPE,
  kvmFacts,
  mapMemory,
  type KvmDevice,
  NativeBlock,
  UFFD_FEATURE,
  Userfaultfd,
  userfaultfdSupport,
} from 'demand-paging/linux';
import { record } from './support/record.js';

const EINTR = 4;
const ITS_BASE = 0x808_0000n;
const DISTRIBUTOR_BASE = 0x800_0000n;
const REDISTRIBUTOR_BASE = 0x80a_0000n;

/** Sets a device's address attribute. */
function place(device: KvmDevice, type: number, address: bigint): void {
  using block = new NativeBlock(8);
  block.view.setBigUint64(0, address, true);
  assert.equal(device.set(KVM_DEV_ARM_VGIC_GRP.ADDR, BigInt(type), block.address), 0);
}

test('the kernel has KVM, and says what it can', () => {
  const facts = kvmFacts();
  const present = Object.entries(facts.capabilities).filter(([, value]) => value !== 0);
  record('kvm capabilities', Object.fromEntries(present));
  record('guest_memfd flags', facts.guestMemfdFlags);
  assert.ok(facts.capabilities.USER_MEMORY > 0);
});

test('a VM with a vCPU comes and goes', () => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu(0);
  vcpu.close();
});

test('an access to where no memory is leaves KVM_RUN, and the next KVM_RUN completes it', (context) => {
  if (process.arch !== 'arm64') return context.skip('the guest code is for arm64');
  const memory = 0x8000_0000;
  const nowhere = 0x9000_0000;
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  using code = mapMemory({ kind: 'anonymous', length: 4096 });
  // ldr x4,[x10]; add x4,x4,#1; str x4,[x10]; str x4,[x10,#8]
  code
    .bytes(0, 16)
    .set(new Uint8Array(Uint32Array.of(0xf9400144, 0x91000484, 0xf9000144, 0xf9000544).buffer));
  vm.setSlot({ slot: 0, gpa: memory, length: 4096, userspace: code.address });
  const vcpu = vm.createVcpu(0);
  vcpu.initialise(vm.preferredTarget());
  vcpu.setRegister(arm64CoreRegister('pc'), BigInt(memory));
  vcpu.setRegister(arm64CoreRegister('x10'), BigInt(nowhere));
  const data = Uint8Array.of(41, 0, 0, 0, 0, 0, 0, 0);
  const written = Uint8Array.of(42, 0, 0, 0, 0, 0, 0, 0);
  assert.equal(vcpu.enter(), 0);
  assert.deepEqual(vcpu.run.exit(), { kind: 'mmio', gpa: nowhere, write: false, data: new Uint8Array(8) });
  vcpu.run.answerMmio(data);
  assert.equal(vcpu.enter(), 0);
  assert.deepEqual(vcpu.run.exit(), { kind: 'mmio', gpa: nowhere, write: true, data: written });
  // immediate_exit ends a KVM_RUN that has nothing to do but complete the store.
  vcpu.run.immediateExit = true;
  assert.equal(vcpu.enter(), -EINTR);
  vcpu.run.immediateExit = false;
  assert.equal(vcpu.enter(), 0);
  assert.deepEqual(vcpu.run.exit(), { kind: 'mmio', gpa: nowhere + 8, write: true, data: written });
  vcpu.close();
});

test('a guest_memfd that can be mapped', (context) => {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  if (!vm.sharesGuestMemfd) return context.skip(`Linux ${release()} has no guest_memfd that can be mapped`);
  assert.ok(vm.createGuestMemfd(1 << 20, GUEST_MEMFD_SHARED) >= 0);
});

test('a vGICv3 with an ITS', (context) => {
  if (process.arch !== 'arm64') return context.skip(`${process.arch} has no GIC`);
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu(0);
  vcpu.initialise(vm.preferredTarget());
  using gic = vm.createDevice(KVM_DEV_TYPE.ARM_VGIC_V3);
  place(gic, KVM_VGIC_ADDR_TYPE.V3_DIST, DISTRIBUTOR_BASE);
  place(gic, KVM_VGIC_ADDR_TYPE.V3_REDIST, REDISTRIBUTOR_BASE);
  assert.equal(gic.set(KVM_DEV_ARM_VGIC_GRP.CTRL, BigInt(KVM_DEV_ARM_CTRL.VGIC_CTRL_INIT)), 0);
  using its = vm.createDevice(KVM_DEV_TYPE.ARM_VGIC_ITS);
  place(its, KVM_VGIC_ADDR_TYPE.ITS, ITS_BASE);
  assert.equal(its.set(KVM_DEV_ARM_VGIC_GRP.CTRL, BigInt(KVM_DEV_ARM_CTRL.VGIC_CTRL_INIT)), 0);
  using value = new NativeBlock(8);
  assert.equal(its.get(KVM_DEV_ARM_VGIC_GRP.ITS_REGS, 8n, value.address), 0);
  const typer = value.view.getBigUint64(0, true);
  record('GITS_TYPER', `0x${typer.toString(16)}`);
  assert.notEqual(typer, 0n);
  vcpu.close();
});

test('userfaultfd, with faults of the kernel', () => {
  const uffd = Userfaultfd.open({ features: UFFD_FEATURE.EVENT_REMOVE });
  uffd.close();
  record('userfaultfd', userfaultfdSupport());
});
