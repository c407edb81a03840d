import { existsSync } from 'node:fs';
import { describe, expect, test, type TestContext } from 'vitest';
import {
  closeDescriptor,
  decodeX86Registers,
  decodeX86SpecialRegisters,
  duplicate,
  encodeX86Cpuid,
  encodeX86Registers,
  encodeX86SpecialRegisters,
  ERRNO,
  GUEST_MEMFD_SHARED,
  isCloseOnExec,
  Kvm,
  KVM_CAP,
  KVM_DEV_TYPE,
  KVM_EXIT,
  KVM_MEM,
  KVM_RUN_HEAD_BYTES,
  KVM_RUN_OFFSET,
  KVM_X86_SIZE,
  kvmCapabilityName,
  kvmExitName,
  KvmRun,
  mapMemory,
  NativeBlock,
  pageSize,
  arm64CoreRegister,
  arm64SystemRegister,
  registerBytes,
  X86_REGISTERS,
  type KvmVcpu,
  type KvmVm,
  type Mapping,
  X86_USER_FLAGS,
  x86UserMode,
} from '../../src/linux/index.js';

const PAGE = pageSize();

function openKvm(context: TestContext): Kvm {
  if (!existsSync('/dev/kvm')) context.skip('no /dev/kvm here');
  return Kvm.open();
}

const CODE = 0x1000;
const DATA = 0x8000;

const TABLES = 0x2000;

/** User-mode code: al = [DATA]; out 0x80, al; [DATA + 1] = al; out 0x81, al. */
const LOAD = [0x8a, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00];
const STORE = [0x88, 0x04, 0x25, 0x01, 0x80, 0x00, 0x00];
const PROGRAM = Uint8Array.of(...LOAD, 0xe6, 0x80, ...STORE, 0xe6, 0x81);

interface Guest extends Disposable {
  readonly vm: KvmVm;
  readonly vcpu: KvmVcpu;
  readonly memory: Mapping;
}

/** Long mode, CPL 3, the first GiB mapped to itself. */
function enterUserMode(vcpu: KvmVcpu, tables: DataView): void {
  const NEXT_LEVEL = 0x7n; // present, writable, user
  tables.setBigUint64(0, BigInt(TABLES + 0x1000) | NEXT_LEVEL, true);
  tables.setBigUint64(0x1000, BigInt(TABLES + 0x2000) | NEXT_LEVEL, true);
  for (let entry = 0; entry < 512; entry++) {
    tables.setBigUint64(0x2000 + entry * 8, BigInt(entry * 0x20_0000) | 0x87n, true); // 2 MiB pages
  }
  vcpu.setSpecialRegisters(x86UserMode(TABLES));
  vcpu.setRegisters({ rip: BigInt(CODE), rflags: X86_USER_FLAGS });
}

/**
 * A one-vCPU x86 guest about to run PROGRAM; memory below DATA is there, what is at DATA is the
 * test's affair. It runs in user mode because some hosts emulate ring 0: there a load is KVM's own
 * access, through the slot's userspace address, and not the vCPU's.
 */
function userModeGuest(context: TestContext): Guest {
  if (process.arch !== 'x64') context.skip('the guest code is x86');
  using kvm = openKvm(context);
  const vm = kvm.createVm();
  const memory = mapMemory({ kind: 'anonymous', length: DATA });
  memory.bytes(CODE, PROGRAM.length).set(PROGRAM);
  vm.setSlot({ slot: 0, gpa: 0, length: DATA, userspace: memory.address });
  const vcpu = vm.createVcpu(0);
  const tables = memory.bytes(TABLES, 0x3000);
  enterUserMode(vcpu, new DataView(tables.buffer, tables.byteOffset, tables.length));
  return {
    vm,
    vcpu,
    memory,
    [Symbol.dispose]() {
      vcpu.close();
      vm.close();
      memory.dispose();
    },
  };
}

/** Runs to the OUT and returns what was loaded from DATA. */
function loaded(vcpu: KvmVcpu): number {
  expect(vcpu.enter()).toBe(0);
  const exit = vcpu.run.exit();
  if (exit.kind !== 'io') throw new Error(`expected io, got ${exit.kind}`);
  expect(exit).toMatchObject({ write: true, size: 1, port: 0x80, count: 1 });
  return vcpu.run.ioData(exit)[0]!;
}

describe('a real guest', () => {
  test('loads, writes a port, stores and writes another', (context) => {
    using guest = userModeGuest(context);
    using data = mapMemory({ kind: 'anonymous', length: PAGE });
    data.bytes()[0] = 0x4d;
    guest.vm.setSlot({ slot: 1, gpa: DATA, length: PAGE, userspace: data.address });
    expect(loaded(guest.vcpu)).toBe(0x4d);
    expect(guest.vcpu.enter()).toBe(0);
    expect(guest.vcpu.run.exit()).toMatchObject({ kind: 'io', port: 0x81 });
    expect(data.bytes()[1]).toBe(0x4d);
    const { rip, rax } = guest.vcpu.registers;
    expect([CODE + PROGRAM.length - 2, CODE + PROGRAM.length], 'on the OUT or behind it').toContain(
      Number(rip),
    );
    expect(rax & 0xffn).toBe(0x4dn);
  });

  test('an address in no slot is an mmio exit that can be answered', (context) => {
    using guest = userModeGuest(context);
    expect(guest.vcpu.enter()).toBe(0);
    expect(guest.vcpu.run.exit()).toEqual({ kind: 'mmio', gpa: DATA, write: false, data: new Uint8Array(1) });
    guest.vcpu.run.answerMmio(Uint8Array.of(0x5e));
    expect(loaded(guest.vcpu)).toBe(0x5e);
    expect(guest.vcpu.enter()).toBe(0);
    expect(guest.vcpu.run.exit()).toEqual({
      kind: 'mmio',
      gpa: DATA + 1,
      write: true,
      data: Uint8Array.of(0x5e),
    });
  });

  test('a slot whose guest_memfd is gone exits with the page; a real slot lets the guest go on', (context) => {
    using guest = userModeGuest(context);
    if (!guest.vm.sharesGuestMemfd) context.skip('no mappable guest_memfd (Linux 6.18)');
    using data = mapMemory({ kind: 'anonymous', length: PAGE });
    data.bytes()[0] = 0x6b;
    const slot = { slot: 1, gpa: DATA, length: PAGE, userspace: data.address };
    const file = guest.vm.createGuestMemfd(PAGE, GUEST_MEMFD_SHARED);
    expect(isCloseOnExec(file)).toBe(true);
    guest.vm.setSlot({ ...slot, guestMemfd: file });
    closeDescriptor(file);
    expect(guest.vcpu.enter()).toBe(-ERRNO.EFAULT);
    expect(guest.vcpu.run.exit()).toEqual({ kind: 'memory-fault', gpa: DATA, size: PAGE, flags: 0 });
    expect([guest.vcpu.run.faultGpa, guest.vcpu.run.faultSize]).toEqual([DATA, PAGE]);
    guest.vm.setSlot({ ...slot, length: 0 });
    guest.vm.setSlot(slot);
    expect(loaded(guest.vcpu)).toBe(0x6b);
  });

  test('a guest_memfd can be mapped, reads as zeros, and feeds the guest', (context) => {
    using guest = userModeGuest(context);
    if (!guest.vm.sharesGuestMemfd) context.skip('no mappable guest_memfd (Linux 6.18)');
    const file = guest.vm.createGuestMemfd(PAGE, GUEST_MEMFD_SHARED);
    using memory = mapMemory({ kind: 'file', length: PAGE, fd: duplicate(file) });
    expect(memory.bytes()[0]).toBe(0);
    memory.bytes()[0] = 0x29;
    guest.vm.setSlot({ slot: 1, gpa: DATA, length: PAGE, userspace: memory.address, guestMemfd: file });
    closeDescriptor(file);
    expect(loaded(guest.vcpu)).toBe(0x29);
  });

  test('the dirty log has the page that was stored to, once', (context) => {
    using guest = userModeGuest(context);
    using data = mapMemory({ kind: 'anonymous', length: 2 * PAGE });
    const flags = KVM_MEM.LOG_DIRTY_PAGES;
    guest.vm.setSlot({ slot: 1, flags, gpa: DATA, length: 2 * PAGE, userspace: data.address });
    expect(guest.vcpu.enter()).toBe(0);
    expect(guest.vcpu.enter()).toBe(0);
    expect(guest.vcpu.run.exit()).toMatchObject({ kind: 'io', port: 0x81 });
    using bitmap = new NativeBlock(8);
    guest.vm.dirtyLog(1, bitmap.address);
    expect(bitmap.words[0]).toBe(1);
    guest.vm.dirtyLog(1, bitmap.address);
    expect(bitmap.words[0]).toBe(0);
    expect(() => guest.vm.dirtyLog(0, bitmap.address)).toThrow(
      expect.objectContaining({ code: 'NOT_SUPPORTED' }),
    );
  });

  test('immediate_exit is EINTR and leaves the guest where it was', (context) => {
    using guest = userModeGuest(context);
    guest.vcpu.run.immediateExit = true;
    expect(guest.vcpu.run.immediateExit).toBe(true);
    expect(guest.vcpu.enter()).toBe(-ERRNO.EINTR);
    expect(guest.vcpu.registers.rip).toBe(BigInt(CODE));
  });

  test('memory can be faulted in before the guest touches it', (context) => {
    using guest = userModeGuest(context);
    if (guest.vm.check(KVM_CAP.PRE_FAULT_MEMORY) === 0) context.skip('this KVM has no KVM_PRE_FAULT_MEMORY');
    const { result, left } = guest.vcpu.preFault(0, DATA);
    if (result === -ERRNO.EOPNOTSUPP) context.skip('not with the shadow page tables of this KVM');
    expect({ result, left }).toEqual({ result: 0, left: 0 });
    expect(guest.memory.residency()).toEqual(new Uint8Array(DATA / PAGE).fill(1));
  });

  test("translate walks the guest's tables", (context) => {
    using guest = userModeGuest(context);
    expect(guest.vcpu.translate(0x20_1234n)).toEqual({ valid: true, gpa: 0x20_1234n });
    expect(guest.vcpu.translate(0x7fff_0000_0000n).valid).toBe(false);
  });
});

describe('refusals', () => {
  test('overlapping slots are BAD_RANGE; the raw form says EEXIST', (context) => {
    using kvm = openKvm(context);
    using vm = kvm.createVm();
    using memory = mapMemory({ kind: 'anonymous', length: 2 * PAGE });
    vm.setSlot({ slot: 0, gpa: 0, length: 2 * PAGE, userspace: memory.address });
    const overlap = { slot: 1, gpa: PAGE, length: PAGE, userspace: memory.address };
    expect(vm.trySetSlot(overlap)).toBe(-ERRNO.EEXIST);
    expect(() => vm.setSlot(overlap)).toThrow(
      expect.objectContaining({ code: 'BAD_RANGE', errno: ERRNO.EEXIST }),
    );
  });

  test('unlisted guest_memfd flags and unknown devices are NOT_SUPPORTED', (context) => {
    using kvm = openKvm(context);
    using vm = kvm.createVm();
    if (vm.check(KVM_CAP.GUEST_MEMFD)) {
      const create = (): unknown => vm.createGuestMemfd(PAGE, 2 ** 40);
      expect(create).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED', errno: ERRNO.EINVAL }));
    }
    const type = process.arch === 'x64' ? KVM_DEV_TYPE.ARM_VGIC_ITS : 0;
    expect(() => vm.createDevice(type)).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED' }));
  });

  test('capabilities by number; a missing one is 0', (context) => {
    using kvm = openKvm(context);
    using vm = kvm.createVm();
    expect(kvm.check(KVM_CAP.USER_MEMORY)).toBe(1);
    expect(vm.check(KVM_CAP.NR_MEMSLOTS)).toBeGreaterThan(0);
    expect(kvm.check(0x7fff)).toBe(0);
    expect(() => vm.enable(0x7fff)).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED' }));
  });

  test('a closed vCPU touches nothing', (context) => {
    using kvm = openKvm(context);
    using vm = kvm.createVm();
    const vcpu = vm.createVcpu(0);
    vcpu.close();
    vcpu.close();
    expect(vcpu.enter()).toBe(-ERRNO.EBADF);
    expect(() => vcpu.translate(0n)).toThrow(expect.objectContaining({ code: 'CLOSED' }));
  });
});

describe('codecs', () => {
  function runOf(reason: number, fill: (view: DataView) => void): KvmRun {
    const bytes = new Uint8Array(KVM_RUN_HEAD_BYTES);
    const view = new DataView(bytes.buffer);
    view.setUint32(KVM_RUN_OFFSET.exit_reason, reason, true);
    fill(view);
    return new KvmRun(bytes);
  }

  test('before KVM_RUN an old memory fault is forgotten, and an MMIO, which waits to be completed, is not', () => {
    const fault = runOf(KVM_EXIT.MEMORY_FAULT, () => {});
    fault.forgetExit();
    expect(fault.exit().kind).toBe('none');
    const mmio = runOf(KVM_EXIT.MMIO, () => {});
    mmio.forgetExit();
    expect(mmio.exit().kind).toBe('mmio');
  });

  test('exits that a test guest does not produce', () => {
    const error = runOf(KVM_EXIT.INTERNAL_ERROR, (view) => {
      view.setUint32(32, 1, true);
      view.setUint32(36, 2, true);
      view.setBigUint64(40, 0xffff_ffff_ffff_ffffn, true);
      view.setBigUint64(48, 7n, true);
    });
    expect(error.exit()).toEqual({ kind: 'internal-error', suberror: 1, data: [0xffff_ffff_ffff_ffffn, 7n] });
    const event = runOf(KVM_EXIT.SYSTEM_EVENT, (view) => {
      view.setUint32(32, 2, true);
      view.setUint32(36, 1000, true); // more than the kernel's own array holds
    });
    expect(event.exit()).toMatchObject({ kind: 'system-event', type: 2, data: { length: 16 } });
    const entry = runOf(KVM_EXIT.FAIL_ENTRY, (view) => {
      view.setBigUint64(32, 0x8000_0021n, true);
      view.setUint32(40, 3, true);
    });
    expect(entry.exit()).toEqual({ kind: 'fail-entry', reason: 0x8000_0021n, cpu: 3 });
    const abort = runOf(KVM_EXIT.ARM_NISV, (view) => {
      view.setBigUint64(32, 0x45n, true);
      view.setBigUint64(40, 0x9_0000_0000n, true);
    });
    expect(abort.exit()).toEqual({ kind: 'arm-nisv', syndrome: 0x45n, gpa: 0x9_0000_0000 });
    expect(runOf(KVM_EXIT.HLT, () => {}).exit()).toEqual({ kind: 'hlt' });
    expect(runOf(KVM_EXIT.SHUTDOWN, () => {}).exit()).toEqual({ kind: 'shutdown' });
    expect(runOf(KVM_EXIT.INTR, () => {}).exit()).toEqual({ kind: 'interrupted' });
    expect(runOf(0, () => {}).exit()).toEqual({ kind: 'none' });
    expect(runOf(999, () => {}).exit()).toEqual({ kind: 'other', reason: 999, name: 'exit 999' });
    expect(() => new KvmRun(new Uint8Array(KVM_RUN_HEAD_BYTES - 1))).toThrow(RangeError);
  });

  test('registers come back as they went in', () => {
    const bytes = new Uint8Array(KVM_X86_SIZE.regs);
    const values = Object.fromEntries(X86_REGISTERS.map((name, index) => [name, BigInt(index) << 56n]));
    encodeX86Registers(bytes, values);
    encodeX86Registers(bytes, { rip: 5n });
    expect(decodeX86Registers(bytes)).toEqual({ ...values, rip: 5n });
    expect(() => decodeX86Registers(bytes.subarray(1))).toThrow(RangeError);
  });

  test('special registers come back as they went in', () => {
    const bytes = Uint8Array.from({ length: KVM_X86_SIZE.sregs }, (_, index) => index & 0xff);
    const decoded = decodeX86SpecialRegisters(bytes);
    const again = new Uint8Array(KVM_X86_SIZE.sregs);
    encodeX86SpecialRegisters(again, decoded);
    expect(decodeX86SpecialRegisters(again)).toEqual(decoded);
    const kept = again.slice();
    encodeX86SpecialRegisters(again, {});
    expect(again).toEqual(kept);
  });

  test('CPUID entries lie behind their count', () => {
    const bytes = encodeX86Cpuid([
      { function: 0x8000_0001, edx: 1 << 29 },
      { function: 7, eax: 1, ebx: 2, ecx: 3 },
    ]);
    const words = new Uint32Array(bytes.buffer);
    expect([...words.subarray(0, 12)]).toEqual([2, 0, 0x8000_0001, 0, 0, 0, 0, 0, 1 << 29, 0, 0, 0]);
    expect([...words.subarray(12)]).toEqual([7, 0, 0, 1, 2, 3, 0, 0, 0, 0]);
  });

  test('arm64 register identities', () => {
    expect(arm64CoreRegister('x0')).toBe(0x6030_0000_0010_0000n);
    expect(arm64CoreRegister('x30')).toBe(0x6030_0000_0010_003cn);
    expect(arm64CoreRegister('pc')).toBe(0x6030_0000_0010_0040n);
    expect(arm64SystemRegister(3, 0, 0, 0, 5), 'MPIDR_EL1').toBe(0x6030_0000_0013_c005n);
    expect(registerBytes(arm64CoreRegister('pc'))).toBe(8);
    expect(() => arm64CoreRegister('x31')).toThrow(RangeError);
  });

  test('names', () => {
    expect(kvmCapabilityName(KVM_CAP.GUEST_MEMFD_FLAGS)).toBe('GUEST_MEMFD_FLAGS');
    expect(kvmCapabilityName(12345)).toBeUndefined();
    expect(kvmExitName(39)).toBe('MEMORY_FAULT');
  });
});
