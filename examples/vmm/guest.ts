import { type KvmVcpu, X86_LONG_MODE_CPUID, X86_USER_FLAGS, x86UserMode } from 'demand-paging/linux';

/** Where the guest's parts lie, in guest-physical bytes: identity-mapped, two megabytes a mapping. */
export const GUEST = {
  pageTables: 0x1000,
  code: 0x10_000,
  /** One page a vCPU. */
  stacks: 0x20_000,
  counter: 0x40_000,
  low_bytes: 0x20_0000,
  data: 0x20_0000,
} as const;

const PAGE = 4096;
/** The port that a vCPU writes when it is through. */
export const DONE_PORT = 0x80;

/**
 * Reads the first word of every page of its range, adds it up, writes the sum so far into the second word of
 * the page, and last adds the whole sum to a counter that all vCPUs share.
 *
 * xor  eax, eax next: call touch add  rdi, 4096 dec  rsi jnz  next lock add [rdx], rax out  0x80, al touch:
 * push rsi mov  rbx, [rdi] add  rax, rbx mov  [rdi + 8], rax pop  rsi ret
 */
const CODE = Uint8Array.of(
  ...[0x31, 0xc0],
  ...[0xe8, 0x12, 0x00, 0x00, 0x00],
  ...[0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00],
  ...[0x48, 0xff, 0xce],
  ...[0x75, 0xef],
  ...[0xf0, 0x48, 0x01, 0x02],
  ...[0xe6, 0x80],
  ...[0x56, 0x48, 0x8b, 0x1f, 0x48, 0x01, 0xd8, 0x48, 0x89, 0x47, 0x08, 0x5e, 0xc3],
);

/** The guest's memory as it was saved: tables, code, and data that can be checked. */
export function writeImage(image: Uint8Array): void {
  const view = new DataView(image.buffer, image.byteOffset, image.length);
  const [pml4, pdpt, pd] = [GUEST.pageTables, GUEST.pageTables + PAGE, GUEST.pageTables + 2 * PAGE];
  const [TABLE, LARGE_PAGE] = [7n, 0x87n]; // present, writable, user
  view.setBigUint64(pml4, BigInt(pdpt) | TABLE, true);
  view.setBigUint64(pdpt, BigInt(pd) | TABLE, true);
  for (let entry = 0; entry < 512; entry++)
    view.setBigUint64(pd + entry * 8, (BigInt(entry) << 21n) | LARGE_PAGE, true);
  image.set(CODE, GUEST.code);
  for (let at = GUEST.data; at < image.length; at += PAGE) view.setBigUint64(at, wordOf(at), true);
}

/** What the first word of the data page at `at` holds. */
export const wordOf = (at: number): bigint => (BigInt(at) * 0x9e37_79b9n) & 0xffff_ffffn;

/** What adding up `pages` pages from `start` must give. */
export function expectedSum(start: number, pages: number): bigint {
  let sum = 0n;
  for (let page = 0; page < pages; page++) sum += wordOf(start + page * PAGE);
  return sum;
}

/** What one vCPU works on. */
export interface Share {
  readonly start: number;
  readonly pages: number;
}

/**
 * Long mode at CPL 3 with I/O allowed, about to begin: as if restored from a snapshot. `isNew`: it has never
 * run, and is told what CPUID says, which cannot be changed later.
 */
export function restoreVcpu(vcpu: KvmVcpu, index: number, { start, pages }: Share, isNew = true): void {
  if (isNew) vcpu.setCpuid(X86_LONG_MODE_CPUID);
  vcpu.setSpecialRegisters(x86UserMode(GUEST.pageTables));
  vcpu.setRegisters({
    rip: BigInt(GUEST.code),
    rsp: BigInt(GUEST.stacks + (index + 1) * PAGE),
    rflags: X86_USER_FLAGS,
    rdi: BigInt(start),
    rsi: BigInt(pages),
    rdx: BigInt(GUEST.counter),
  });
}
