import { KVM_X86_SIZE } from './kvm-abi.js';

/** Order of the 64-bit words of `struct kvm_regs` on x86-64. */
export const X86_REGISTERS = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rsp',
  'rbp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
  'rip',
  'rflags',
] as const;

export type X86Register = (typeof X86_REGISTERS)[number];
export type X86Registers = Record<X86Register, bigint>;

/** Order of the segments of `struct kvm_sregs`, 24 bytes each from 0. */
export const X86_SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;

export type X86SegmentName = (typeof X86_SEGMENTS)[number];

/** `struct kvm_segment`. */
export interface X86Segment {
  base: bigint;
  limit: number;
  selector: number;
  type: number;
  present: number;
  dpl: number;
  db: number;
  s: number;
  l: number;
  g: number;
  avl: number;
  unusable: number;
}

/** `struct kvm_dtable`. */
export interface X86Table {
  base: bigint;
  limit: number;
}

/** Control registers in their order from {@link X86_SREGS_OFFSET}.cr0. */
const CONTROL = ['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'apic_base'] as const;

/** `struct kvm_sregs` of x86-64. */
export interface X86SpecialRegisters
  extends Record<X86SegmentName, X86Segment>, Record<(typeof CONTROL)[number], bigint> {
  gdt: X86Table;
  idt: X86Table;
  /** 256 bits, one pending interrupt at most. */
  interrupt_bitmap: bigint[];
}

const SEGMENT_BYTES = 24;

/** Offsets into `struct kvm_sregs`. */
export const X86_SREGS_OFFSET = {
  cs: 0,
  ss: 120,
  ldt: 168,
  gdt: 192,
  idt: 208,
  cr0: 224,
  efer: 264,
  apic_base: 272,
  interrupt_bitmap: 280,
} as const;

/** Offsets into `struct kvm_segment`. */
export const X86_SEGMENT_OFFSET = {
  base: 0,
  limit: 8,
  selector: 12,
  type: 14,
  present: 15,
  dpl: 16,
  db: 17,
  s: 18,
  l: 19,
  g: 20,
  avl: 21,
  unusable: 22,
} as const;

const AT = X86_SEGMENT_OFFSET;
const BYTES = ['type', 'present', 'dpl', 'db', 's', 'l', 'g', 'avl', 'unusable'] as const;

function viewOf(bytes: Uint8Array, size: number, what: string): DataView {
  if (bytes.length < size) throw new RangeError(`${what} has ${size} bytes, not ${bytes.length}`);
  return new DataView(bytes.buffer, bytes.byteOffset, size);
}

/** Reads `struct kvm_regs` of x86-64. */
export function decodeX86Registers(bytes: Uint8Array): X86Registers {
  const view = viewOf(bytes, KVM_X86_SIZE.regs, 'kvm_regs');
  const pairs = X86_REGISTERS.map((name, index) => [name, view.getBigUint64(index * 8, true)]);
  return Object.fromEntries(pairs) as X86Registers;
}

/** Writes the named registers into `struct kvm_regs` of x86-64; the others stay as they are. */
export function encodeX86Registers(bytes: Uint8Array, registers: Partial<X86Registers>): void {
  const view = viewOf(bytes, KVM_X86_SIZE.regs, 'kvm_regs');
  X86_REGISTERS.forEach((name, index) => {
    const value = registers[name];
    if (value !== undefined) view.setBigUint64(index * 8, value, true);
  });
}

function decodeSegment(view: DataView, at: number): X86Segment {
  const bytes = Object.fromEntries(BYTES.map((name) => [name, view.getUint8(at + AT[name])]));
  return {
    base: view.getBigUint64(at + AT.base, true),
    limit: view.getUint32(at + AT.limit, true),
    selector: view.getUint16(at + AT.selector, true),
    ...(bytes as Record<(typeof BYTES)[number], number>),
  };
}

function encodeSegment(view: DataView, at: number, segment: X86Segment): void {
  view.setBigUint64(at + AT.base, segment.base, true);
  view.setUint32(at + AT.limit, segment.limit, true);
  view.setUint16(at + AT.selector, segment.selector, true);
  for (const name of BYTES) view.setUint8(at + AT[name], segment[name]);
}

const decodeTable = (view: DataView, at: number): X86Table => ({
  base: view.getBigUint64(at, true),
  limit: view.getUint16(at + 8, true),
});

function encodeTable(view: DataView, at: number, table: X86Table): void {
  view.setBigUint64(at, table.base, true);
  view.setUint16(at + 8, table.limit, true);
}

/** Reads `struct kvm_sregs` of x86-64. */
export function decodeX86SpecialRegisters(bytes: Uint8Array): X86SpecialRegisters {
  const view = viewOf(bytes, KVM_X86_SIZE.sregs, 'kvm_sregs');
  const at = X86_SREGS_OFFSET;
  const segments = X86_SEGMENTS.map((name, index) => [name, decodeSegment(view, index * SEGMENT_BYTES)]);
  const control = CONTROL.map((name, index) => [name, view.getBigUint64(at.cr0 + index * 8, true)]);
  return {
    ...(Object.fromEntries(segments) as Record<X86SegmentName, X86Segment>),
    ...(Object.fromEntries(control) as Record<(typeof CONTROL)[number], bigint>),
    gdt: decodeTable(view, at.gdt),
    idt: decodeTable(view, at.idt),
    interrupt_bitmap: [0, 1, 2, 3].map((word) => view.getBigUint64(at.interrupt_bitmap + word * 8, true)),
  };
}

/** Writes the named parts into `struct kvm_sregs` of x86-64; the others stay as they are. */
export function encodeX86SpecialRegisters(bytes: Uint8Array, registers: Partial<X86SpecialRegisters>): void {
  const view = viewOf(bytes, KVM_X86_SIZE.sregs, 'kvm_sregs');
  const at = X86_SREGS_OFFSET;
  X86_SEGMENTS.forEach((name, index) => {
    const segment = registers[name];
    if (segment) encodeSegment(view, index * SEGMENT_BYTES, segment);
  });
  CONTROL.forEach((name, index) => {
    const value = registers[name];
    if (value !== undefined) view.setBigUint64(at.cr0 + index * 8, value, true);
  });
  if (registers.gdt) encodeTable(view, at.gdt, registers.gdt);
  if (registers.idt) encodeTable(view, at.idt, registers.idt);
  registers.interrupt_bitmap?.forEach((word, index) =>
    view.setBigUint64(at.interrupt_bitmap + index * 8, word, true),
  );
}

/** `struct kvm_cpuid_entry2`: what CPUID says of one function, to the guest. */
export interface X86CpuidEntry {
  function: number;
  eax?: number;
  ebx?: number;
  ecx?: number;
  edx?: number;
}

/**
 * The least CPUID of a vCPU whose special registers say long mode. Linux 7.3 refuses EFER.LME
 * (KVM_SET_SREGS: EINVAL) of a vCPU whose CPUID has no long mode; earlier kernels looked at the host's only.
 */
export const X86_LONG_MODE_CPUID: readonly X86CpuidEntry[] = [
  { function: 0x8000_0000, eax: 0x8000_0008 },
  { function: 0x8000_0001, edx: (1 << 29) | (1 << 20) }, // LM, NX
  { function: 0x8000_0008, eax: (48 << 8) | 52 }, // bits of linear and physical addresses
];

/** A segment without base or limit, at CPL 3. `type` and `l` as in {@link X86Segment}. */
const userSegment = (selector: number, type: number, l: number): X86Segment => ({
  base: 0n,
  limit: 0xffff_ffff,
  selector,
  type,
  present: 1,
  dpl: 3,
  db: 1 - l,
  s: 1,
  l,
  g: 1,
  avl: 0,
  unusable: 0,
});

/**
 * Special registers of 64-bit code at CPL 3, with paging by the tables at guest-physical `cr3`. KVM takes
 * them of a vCPU with {@link X86_LONG_MODE_CPUID}.
 * Source: Intel SDM vol. 3, 2.5 (CR0.PE|ET|PG, CR4.PAE) and 2.2.1 (IA32_EFER.LME|LMA).
 */
export function x86UserMode(cr3: number): Partial<X86SpecialRegisters> {
  const data = userSegment(0x23, 3, 0);
  return {
    cr0: 0x8000_0011n,
    cr3: BigInt(cr3),
    cr4: 0x20n,
    efer: 0x500n,
    cs: userSegment(0x1b, 11, 1),
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
  };
}

/** RFLAGS of such code, interrupts off: IOPL 3, so that IN and OUT are allowed. */
export const X86_USER_FLAGS = 0x3002n;

/** `struct kvm_cpuid2` with its entries. */
export function encodeX86Cpuid(entries: readonly X86CpuidEntry[]): Uint8Array {
  const bytes = new Uint8Array(KVM_X86_SIZE.cpuid2 + entries.length * KVM_X86_SIZE.cpuid_entry2);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, entries.length, true);
  for (const [index, entry] of entries.entries()) {
    const at = KVM_X86_SIZE.cpuid2 + index * KVM_X86_SIZE.cpuid_entry2;
    const { function: leaf, eax = 0, ebx = 0, ecx = 0, edx = 0 } = entry;
    for (const [word, value] of [leaf, 0, 0, eax, ebx, ecx, edx].entries())
      view.setUint32(at + word * 4, value, true);
  }
  return bytes;
}
