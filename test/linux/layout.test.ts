import { describe, expect, test, type TestContext } from 'vitest';
import { ICC } from '../../src/arm64/index.js';
import {
  ARM64_CORE_OFFSET,
  arm64CoreRegister,
  arm64IrqLine,
  arm64SystemRegister,
  GUEST_MEMFD_FLAG,
  KVM,
  KVM_ARM_IRQ_TYPE,
  KVM_ARM_VCPU,
  KVM_CAP,
  KVM_CREATE_DEVICE_TEST,
  KVM_DEV_ARM_CTRL,
  KVM_DEV_ARM_VGIC_GRP,
  KVM_DEV_ARM_VGIC_SHIFT,
  KVM_DEV_TYPE,
  KVM_EXIT,
  KVM_INTERNAL_ERROR,
  KVM_MEM,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KVM_MSI_VALID_DEVID,
  KVM_RUN_HEAD_BYTES,
  KVM_RUN_OFFSET,
  KVM_SIZE,
  KVM_VGIC_ADDR_TYPE,
  KVM_X86,
  KVM_X86_QUIRK_SLOT_ZAP_ALL,
  KVM_X86_SIZE,
  syscallNumber,
  UFFD_API,
  UFFD_CONTINUE_MODE,
  UFFD_COPY_MODE,
  UFFD_EVENT,
  UFFD_FEATURE,
  UFFD_MOVE_MODE,
  UFFD_MSG_BYTES,
  UFFD_PAGEFAULT_FLAG,
  UFFD_POISON_MODE,
  UFFD_REGISTER_MODE,
  UFFD_RWPROTECT_MODE,
  UFFD_USER_MODE_ONLY,
  UFFD_WRITEPROTECT_MODE,
  UFFD_ZEROPAGE_MODE,
  UFFDIO,
  UFFDIO_SIZE,
  USERFAULTFD_IOC_NEW,
  VGIC_LEVEL_INFO_LINE_LEVEL,
  X86_REGISTERS,
  X86_SEGMENT_OFFSET,
  X86_SREGS_OFFSET,
  FALLOC,
  HUGE_SHIFT,
  MADV,
  MAP,
  MFD,
  MREMAP,
  O,
  POLL,
  PROT,
  type SyscallName,
} from '../../src/linux/index.js';
import {
  ask,
  hasCompiler,
  hasHeadersOf,
  kernelHeaders,
  macro,
  offsetOf,
  sizeOf,
  type HeaderArchitecture,
  type Question,
} from './kernel-headers.js';

/** What the codecs say, beside the question to put to the compiler. */
type Claim = readonly [Question, number | bigint];

const named = (prefix: string, table: Readonly<Record<string, number>>, suffix = ''): Claim[] =>
  Object.entries(table).map(([name, value]) => [macro(`${prefix}${name}${suffix}`), value]);

/** Compares every claim that the headers can judge, then skips with the names of those they cannot. */
function verify(
  context: TestContext,
  architecture: HeaderArchitecture,
  includes: readonly string[],
  claims: readonly Claim[],
): void {
  if (!hasCompiler()) context.skip('no gcc here');
  const headers = kernelHeaders();
  if (!hasHeadersOf(headers, architecture)) {
    context.skip(`no ${architecture} headers of Linux ${headers.version}: ${headers.shortcoming}`);
  }
  const answers = ask(
    headers,
    architecture,
    includes,
    claims.map(([question]) => question),
  );
  const judged = claims.filter(([{ name }]) => answers.has(name));
  const ours = Object.fromEntries(judged.map(([{ name }, value]) => [name, BigInt(value)]));
  const theirs = Object.fromEntries(judged.map(([{ name }]) => [name, answers.get(name)]));
  expect(judged.length).toBeGreaterThan(0);
  expect(ours).toEqual(theirs);
  const missing = claims.filter(([{ name }]) => !answers.has(name)).map(([{ name }]) => name);
  if (missing.length === 0) return;
  context.skip(
    `${judged.length} agree; headers of Linux ${headers.version} lack ${missing.join(', ')}: ${headers.shortcoming}`,
  );
}

const UFFD_STRUCTS: Readonly<Record<keyof typeof UFFDIO_SIZE, string>> = {
  API: 'uffdio_api',
  REGISTER: 'uffdio_register',
  UNREGISTER: 'uffdio_range',
  WAKE: 'uffdio_range',
  COPY: 'uffdio_copy',
  ZEROPAGE: 'uffdio_zeropage',
  MOVE: 'uffdio_move',
  WRITEPROTECT: 'uffdio_writeprotect',
  CONTINUE: 'uffdio_continue',
  POISON: 'uffdio_poison',
  RWPROTECT: 'uffdio_rwprotect',
  SET_MODE: 'uffdio_set_mode',
};

const uffdNumbers: Claim[] = [
  [macro('UFFD_API'), UFFD_API],
  [macro('USERFAULTFD_IOC_NEW'), USERFAULTFD_IOC_NEW],
  [macro('UFFD_USER_MODE_ONLY'), UFFD_USER_MODE_ONLY],
  ...named('UFFDIO_', UFFDIO),
  ...named('UFFD_FEATURE_', UFFD_FEATURE),
  ...named('UFFDIO_REGISTER_MODE_', UFFD_REGISTER_MODE),
  ...named('UFFDIO_COPY_MODE_', UFFD_COPY_MODE),
  ...named('UFFDIO_ZEROPAGE_MODE_', UFFD_ZEROPAGE_MODE),
  ...named('UFFDIO_CONTINUE_MODE_', UFFD_CONTINUE_MODE),
  ...named('UFFDIO_POISON_MODE_', UFFD_POISON_MODE),
  ...named('UFFDIO_MOVE_MODE_', UFFD_MOVE_MODE),
  ...named('UFFDIO_WRITEPROTECT_MODE_', UFFD_WRITEPROTECT_MODE),
  ...named('UFFDIO_RWPROTECT_MODE_', UFFD_RWPROTECT_MODE),
  ...named('UFFD_EVENT_', UFFD_EVENT),
  ...named('UFFD_PAGEFAULT_FLAG_', UFFD_PAGEFAULT_FLAG),
];

/** The places that the port and the decoder use, in bytes: twice or four times their word indices. */
const uffdLayout: Claim[] = [
  ...Object.entries(UFFD_STRUCTS).map(([name, struct]): Claim => {
    return [sizeOf(struct, `UFFDIO_${name}`), UFFDIO_SIZE[name as keyof typeof UFFDIO_SIZE]];
  }),
  [sizeOf('uffd_msg', 'UFFD_API'), UFFD_MSG_BYTES],
  [offsetOf('uffdio_api', 'features', 'UFFD_API'), 8],
  [offsetOf('uffdio_api', 'ioctls', 'UFFD_API'), 16],
  [offsetOf('uffdio_register', 'mode', 'UFFD_API'), 16],
  [offsetOf('uffdio_register', 'ioctls', 'UFFD_API'), 24],
  ...(['copy', 'move'] as const).flatMap((verb): Claim[] => {
    const guard = `UFFDIO_${verb.toUpperCase()}`;
    const struct = `uffdio_${verb}`;
    return [
      [offsetOf(struct, 'dst', guard), 0],
      [offsetOf(struct, 'src', guard), 8],
      [offsetOf(struct, 'len', guard), 16],
      [offsetOf(struct, 'mode', guard), 24],
      [offsetOf(struct, verb, guard), 32],
    ];
  }),
  ...Object.entries({ zeropage: 'zeropage', continue: 'mapped', poison: 'updated' }).flatMap(
    ([verb, done]): Claim[] => {
      const guard = `UFFDIO_${verb.toUpperCase()}`;
      const struct = `uffdio_${verb}`;
      return [
        [offsetOf(struct, 'range.len', guard), 8],
        [offsetOf(struct, 'mode', guard), 16],
        [offsetOf(struct, done, guard), 24],
      ];
    },
  ),
  [offsetOf('uffdio_writeprotect', 'mode', 'UFFDIO_WRITEPROTECT'), 16],
  [offsetOf('uffdio_rwprotect', 'mode', 'UFFDIO_RWPROTECT'), 16],
  [offsetOf('uffdio_set_mode', 'disable', 'UFFDIO_SET_MODE'), 8],
  [offsetOf('uffd_msg', 'arg.pagefault.flags', 'UFFD_API'), 8],
  [offsetOf('uffd_msg', 'arg.pagefault.address', 'UFFD_API'), 16],
  [offsetOf('uffd_msg', 'arg.pagefault.feat.ptid', 'UFFD_API'), 24],
  [offsetOf('uffd_msg', 'arg.fork.ufd', 'UFFD_API'), 8],
  [offsetOf('uffd_msg', 'arg.remap.from', 'UFFD_API'), 8],
  [offsetOf('uffd_msg', 'arg.remap.to', 'UFFD_API'), 16],
  [offsetOf('uffd_msg', 'arg.remap.len', 'UFFD_API'), 24],
  [offsetOf('uffd_msg', 'arg.remove.start', 'UFFD_API'), 8],
  [offsetOf('uffd_msg', 'arg.remove.end', 'UFFD_API'), 16],
];

/** Structures that older headers lack, and a macro that came with each. */
const SINCE: Readonly<Record<string, string>> = {
  userspace_memory_region2: 'KVM_SET_USER_MEMORY_REGION2',
  create_guest_memfd: 'KVM_CREATE_GUEST_MEMFD',
  pre_fault_memory: 'KVM_PRE_FAULT_MEMORY',
};

const kvmNumbers: Claim[] = [
  ...named('KVM_', KVM),
  ...named('KVM_CAP_', KVM_CAP),
  ...named('KVM_EXIT_', KVM_EXIT),
  ...named('KVM_MEM_', KVM_MEM),
  ...named('GUEST_MEMFD_FLAG_', GUEST_MEMFD_FLAG),
  ...named('KVM_INTERNAL_ERROR_', KVM_INTERNAL_ERROR),
  ...named('KVM_DEV_TYPE_', KVM_DEV_TYPE),
  [macro('KVM_MEMORY_EXIT_FLAG_PRIVATE'), KVM_MEMORY_EXIT_FLAG_PRIVATE],
  [macro('KVM_MSI_VALID_DEVID'), KVM_MSI_VALID_DEVID],
  [macro('KVM_CREATE_DEVICE_TEST'), KVM_CREATE_DEVICE_TEST],
];

const run = (member: string, guard = 'KVM_RUN'): Question => offsetOf('kvm_run', member, guard);

const kvmRunLayout: Claim[] = [
  [run('request_interrupt_window'), KVM_RUN_OFFSET.request_interrupt_window],
  [run('immediate_exit'), KVM_RUN_OFFSET.immediate_exit],
  [run('exit_reason'), KVM_RUN_OFFSET.exit_reason],
  [run('flags'), KVM_RUN_OFFSET.flags],
  [run('hw'), KVM_RUN_OFFSET.exit],
  [run('io.direction'), KVM_RUN_OFFSET.io_direction],
  [run('io.size'), KVM_RUN_OFFSET.io_size],
  [run('io.port'), KVM_RUN_OFFSET.io_port],
  [run('io.count'), KVM_RUN_OFFSET.io_count],
  [run('io.data_offset'), KVM_RUN_OFFSET.io_data_offset],
  [run('mmio.phys_addr'), KVM_RUN_OFFSET.mmio_phys_addr],
  [run('mmio.data'), KVM_RUN_OFFSET.mmio_data],
  [run('mmio.len'), KVM_RUN_OFFSET.mmio_len],
  [run('mmio.is_write'), KVM_RUN_OFFSET.mmio_is_write],
  [run('internal.suberror'), KVM_RUN_OFFSET.internal_suberror],
  [run('internal.ndata'), KVM_RUN_OFFSET.internal_ndata],
  [run('internal.data'), KVM_RUN_OFFSET.internal_data],
  [run('fail_entry.hardware_entry_failure_reason'), KVM_RUN_OFFSET.fail_entry_reason],
  [run('fail_entry.cpu'), KVM_RUN_OFFSET.fail_entry_cpu],
  [run('system_event.type'), KVM_RUN_OFFSET.system_event_type],
  [run('system_event.ndata'), KVM_RUN_OFFSET.system_event_ndata],
  [run('system_event.data'), KVM_RUN_OFFSET.system_event_data],
  [run('arm_nisv.esr_iss'), KVM_RUN_OFFSET.arm_nisv_esr_iss],
  [run('arm_nisv.fault_ipa'), KVM_RUN_OFFSET.arm_nisv_fault_ipa],
  [run('memory_fault.flags', 'KVM_EXIT_MEMORY_FAULT'), KVM_RUN_OFFSET.memory_fault_flags],
  [run('memory_fault.gpa', 'KVM_EXIT_MEMORY_FAULT'), KVM_RUN_OFFSET.memory_fault_gpa],
  [run('memory_fault.size', 'KVM_EXIT_MEMORY_FAULT'), KVM_RUN_OFFSET.memory_fault_size],
  [run('arm_sea.flags', 'KVM_EXIT_ARM_SEA'), KVM_RUN_OFFSET.arm_sea_flags],
  [run('arm_sea.esr', 'KVM_EXIT_ARM_SEA'), KVM_RUN_OFFSET.arm_sea_esr],
  [run('arm_sea.gva', 'KVM_EXIT_ARM_SEA'), KVM_RUN_OFFSET.arm_sea_gva],
  [run('arm_sea.gpa', 'KVM_EXIT_ARM_SEA'), KVM_RUN_OFFSET.arm_sea_gpa],
  [run('kvm_valid_regs'), KVM_RUN_HEAD_BYTES],
];

/** The places that src/linux/kvm.ts writes to, in bytes. */
const kvmArguments: Claim[] = [
  ...Object.entries(KVM_SIZE)
    .filter(([name]) => name !== 'vcpu_init')
    .map(([name, size]): Claim => [sizeOf(`kvm_${name}`, SINCE[name] ?? 'KVM_RUN'), size]),
  ...Object.entries({ slot: 0, flags: 4, guest_phys_addr: 8, memory_size: 16, userspace_addr: 24 }).flatMap(
    ([member, offset]): Claim[] => [
      [offsetOf('kvm_userspace_memory_region', member, 'KVM_RUN'), offset],
      [offsetOf('kvm_userspace_memory_region2', member, 'KVM_SET_USER_MEMORY_REGION2'), offset],
    ],
  ),
  [offsetOf('kvm_userspace_memory_region2', 'guest_memfd_offset', 'KVM_SET_USER_MEMORY_REGION2'), 32],
  [offsetOf('kvm_userspace_memory_region2', 'guest_memfd', 'KVM_SET_USER_MEMORY_REGION2'), 40],
  [offsetOf('kvm_create_guest_memfd', 'flags', 'KVM_CREATE_GUEST_MEMFD'), 8],
  [offsetOf('kvm_enable_cap', 'flags', 'KVM_RUN'), 4],
  [offsetOf('kvm_enable_cap', 'args', 'KVM_RUN'), 8],
  [offsetOf('kvm_dirty_log', 'dirty_bitmap', 'KVM_RUN'), 8],
  [offsetOf('kvm_create_device', 'fd', 'KVM_RUN'), 4],
  [offsetOf('kvm_create_device', 'flags', 'KVM_RUN'), 8],
  [offsetOf('kvm_device_attr', 'group', 'KVM_RUN'), 4],
  [offsetOf('kvm_device_attr', 'attr', 'KVM_RUN'), 8],
  [offsetOf('kvm_device_attr', 'addr', 'KVM_RUN'), 16],
  [offsetOf('kvm_irq_level', 'level', 'KVM_RUN'), 4],
  [offsetOf('kvm_msi', 'data', 'KVM_RUN'), 8],
  [offsetOf('kvm_msi', 'flags', 'KVM_RUN'), 12],
  [offsetOf('kvm_msi', 'devid', 'KVM_RUN'), 16],
  [offsetOf('kvm_translation', 'physical_address', 'KVM_RUN'), 8],
  [offsetOf('kvm_translation', 'valid', 'KVM_RUN'), 16],
  [offsetOf('kvm_one_reg', 'addr', 'KVM_RUN'), 8],
  [offsetOf('kvm_pre_fault_memory', 'size', 'KVM_PRE_FAULT_MEMORY'), 8],
  [offsetOf('kvm_pre_fault_memory', 'flags', 'KVM_PRE_FAULT_MEMORY'), 16],
];

const SYSCALLS: readonly SyscallName[] = [
  'userfaultfd',
  'pidfd_open',
  'pidfd_getfd',
  'pidfd_send_signal',
  'gettid',
  'tgkill',
];

const mmanNumbers: Claim[] = [
  ...named('PROT_', PROT),
  ...named('MAP_', MAP),
  ...named('MADV_', MADV),
  ...named('MREMAP_', MREMAP),
  ...named('MFD_', MFD),
  ...named('FALLOC_FL_', FALLOC),
  [macro('MAP_HUGE_SHIFT'), HUGE_SHIFT],
];

/** KVM_ARM_VCPU_INIT and KVM_ARM_PREFERRED_TARGET carry a structure that x86 does not declare. */
const ofBoth = (claims: readonly Claim[], architecture: HeaderArchitecture): Claim[] =>
  claims.filter(
    ([{ name }]) =>
      architecture === 'arm64' || !['KVM_ARM_VCPU_INIT', 'KVM_ARM_PREFERRED_TARGET'].includes(name),
  );

describe.each(['x64', 'arm64'] as const)('%s', (architecture) => {
  const check = (includes: readonly string[], claims: readonly Claim[]) => (context: TestContext) =>
    verify(context, architecture, includes, ofBoth(claims, architecture));

  test('userfaultfd: constants and requests', check(['linux/userfaultfd.h'], uffdNumbers));
  test('userfaultfd: structures', check(['linux/userfaultfd.h'], uffdLayout));
  test('KVM: requests, capabilities, exits, flags', check(['linux/kvm.h'], kvmNumbers));
  test('KVM: kvm_run', check(['linux/kvm.h'], kvmRunLayout));
  test('KVM: arguments', check(['linux/kvm.h'], kvmArguments));
  test('mman', check(['linux/mman.h', 'linux/memfd.h', 'linux/falloc.h'], mmanNumbers));
  test('files', check(['linux/fcntl.h', 'linux/poll.h'], [...named('O_', O), ...named('POLL', POLL)]));
  test(
    'system call numbers',
    check(
      ['asm/unistd.h'],
      SYSCALLS.map((name): Claim => [macro(`__NR_${name}`), syscallNumber(name, architecture)]),
    ),
  );
});

test('x64: register structures', (context) => {
  const sregs = Object.entries(X86_SREGS_OFFSET).map(([member, offset]): Claim => {
    return [offsetOf('kvm_sregs', member, 'KVM_RUN'), offset];
  });
  const segment = Object.entries(X86_SEGMENT_OFFSET).map(([member, offset]): Claim => {
    return [offsetOf('kvm_segment', member, 'KVM_RUN'), offset];
  });
  verify(
    context,
    'x64',
    ['linux/kvm.h'],
    [
      ...named('KVM_', KVM_X86),
      [sizeOf('kvm_regs', 'KVM_RUN'), KVM_X86_SIZE.regs],
      [sizeOf('kvm_sregs', 'KVM_RUN'), KVM_X86_SIZE.sregs],
      [sizeOf('kvm_cpuid2', 'KVM_RUN'), KVM_X86_SIZE.cpuid2],
      [sizeOf('kvm_cpuid_entry2', 'KVM_RUN'), KVM_X86_SIZE.cpuid_entry2],
      ...['function', 'index', 'flags', 'eax', 'ebx', 'ecx', 'edx'].map((name, index): Claim => {
        return [offsetOf('kvm_cpuid_entry2', name, 'KVM_RUN'), index * 4];
      }),
      [sizeOf('kvm_segment', 'KVM_RUN'), 24],
      [sizeOf('kvm_dtable', 'KVM_RUN'), 16],
      [offsetOf('kvm_dtable', 'limit', 'KVM_RUN'), 8],
      [macro('KVM_X86_QUIRK_SLOT_ZAP_ALL'), KVM_X86_QUIRK_SLOT_ZAP_ALL],
      ...X86_REGISTERS.map((name, index): Claim => [offsetOf('kvm_regs', name, 'KVM_RUN'), index * 8]),
      ...(['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'apic_base'] as const).map((name, index): Claim => {
        return [offsetOf('kvm_sregs', name, 'KVM_RUN'), X86_SREGS_OFFSET.cr0 + index * 8];
      }),
      ...sregs,
      ...segment,
    ],
  );
});

/** `irq` of KVM_IRQ_LINE as the headers put it together. */
const irqLine = (type: string, rest: string): Question => ({
  name: `KVM_IRQ_LINE of a ${type}`,
  expression: `((__u32)KVM_ARM_IRQ_TYPE_${type} << KVM_ARM_IRQ_TYPE_SHIFT) | ${rest}`,
  guard: 'KVM_ARM_IRQ_VCPU2_SHIFT',
});

/** A register of KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS by its encoding. */
const vgicRegister = (encoding: string): Question => ({
  name: `CPU_SYSREGS ${encoding}`,
  expression: `ARM64_SYS_REG(${encoding}) & KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK`,
  guard: 'KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK',
});

test('arm64: registers, vCPU features and VGIC attributes', (context) => {
  const guard = 'KVM_RUN';
  const core = (member: string): Question => ({
    name: `KVM_REG_ARM_CORE_REG(${member})`,
    expression: `KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(${member})`,
    guard: 'KVM_REG_ARM_CORE',
  });
  verify(
    context,
    'arm64',
    ['linux/kvm.h'],
    [
      ...named('KVM_ARM_VCPU_', KVM_ARM_VCPU),
      ...named('KVM_DEV_ARM_VGIC_GRP_', KVM_DEV_ARM_VGIC_GRP),
      ...named('KVM_DEV_ARM_', KVM_DEV_ARM_CTRL),
      [macro('KVM_VGIC_V2_ADDR_TYPE_DIST'), KVM_VGIC_ADDR_TYPE.V2_DIST],
      [macro('KVM_VGIC_V2_ADDR_TYPE_CPU'), KVM_VGIC_ADDR_TYPE.V2_CPU],
      [macro('KVM_VGIC_V3_ADDR_TYPE_DIST'), KVM_VGIC_ADDR_TYPE.V3_DIST],
      [macro('KVM_VGIC_V3_ADDR_TYPE_REDIST'), KVM_VGIC_ADDR_TYPE.V3_REDIST],
      [macro('KVM_VGIC_ITS_ADDR_TYPE'), KVM_VGIC_ADDR_TYPE.ITS],
      [macro('KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION'), KVM_VGIC_ADDR_TYPE.V3_REDIST_REGION],
      [macro('KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT'), KVM_DEV_ARM_VGIC_SHIFT.MPIDR],
      [macro('KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT'), KVM_DEV_ARM_VGIC_SHIFT.LINE_LEVEL_INFO],
      [macro('VGIC_LEVEL_INFO_LINE_LEVEL'), VGIC_LEVEL_INFO_LINE_LEVEL],
      ...named('KVM_ARM_IRQ_TYPE_', KVM_ARM_IRQ_TYPE),
      [irqLine('SPI', '40'), arm64IrqLine('SPI', 40)],
      [
        irqLine('PPI', '(1u << KVM_ARM_IRQ_VCPU2_SHIFT) | (3 << KVM_ARM_IRQ_VCPU_SHIFT) | 20'),
        arm64IrqLine('PPI', 20, 259),
      ],
      [vgicRegister('3, 0, 4, 6, 0'), ICC.pmr],
      [vgicRegister('3, 0, 12, 8, 4'), ICC.ap0r],
      [vgicRegister('3, 0, 12, 9, 0'), ICC.ap1r],
      [vgicRegister('3, 0, 12, 12, 7'), ICC.igrpen1],
      [sizeOf('kvm_vcpu_init', guard), KVM_SIZE.vcpu_init],
      [offsetOf('kvm_regs', 'regs.sp', guard), ARM64_CORE_OFFSET.sp],
      [offsetOf('kvm_regs', 'spsr', guard), ARM64_CORE_OFFSET.spsr],
      [core('regs.regs[0]'), arm64CoreRegister('x0')],
      [core('regs.regs[30]'), arm64CoreRegister('x30')],
      [core('regs.sp'), arm64CoreRegister('sp')],
      [core('regs.pc'), arm64CoreRegister('pc')],
      [core('regs.pstate'), arm64CoreRegister('pstate')],
      [core('sp_el1'), arm64CoreRegister('sp_el1')],
      [core('elr_el1'), arm64CoreRegister('elr_el1')],
      [
        { ...macro('ARM64_SYS_REG'), expression: 'ARM64_SYS_REG(3, 3, 14, 3, 1)' },
        arm64SystemRegister(3, 3, 14, 3, 1),
      ],
    ],
  );
});
