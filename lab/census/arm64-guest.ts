import { arm64CoreRegister, arm64SystemRegister, type KvmVcpu } from 'demand-paging/linux';

/** Where what the guest touches lies: a page each, so that each is missing by itself. */
export const RAM = 0x8000_0000n;
export const RAM_BYTES = 0x40_0000;
export const PLACE = {
  level1: RAM,
  level2: RAM + 0x1000n,
  code: RAM + 0x10_0000n,
  further: RAM + 0x11_0000n,
  load: RAM + 0x20_0000n,
  store: RAM + 0x21_0000n,
  atomic: RAM + 0x22_0000n,
  stolen: RAM + 0x30_0000n,
} as const;
/** No memory: a store there ends the run. */
export const DONE = 0x1000_0000n;

/** ldr x1, [x0]; str x1, [x2]; br x3 */
const CODE = [0xf940_0001, 0xf900_0041, 0xd61f_0060];
/** ldadd x1, x7, [x6]; str x1, [x5]; b . */
const FURTHER = [0xf821_00c7, 0xf900_00a1, 0x1400_0000];

const BLOCK = 0x1n;
const TABLE = 0x3n;
const NORMAL = 0x700n; // accessed, inner shareable, attribute 0
const DEVICE = 0x404n; // accessed, attribute 1
const GIB = 0x4000_0000n;

/** The guest's code, and page tables of two levels that map its memory one to one. */
export function guestWords(): (readonly [gpa: bigint, word: bigint])[] {
  const words: [bigint, bigint][] = [
    [PLACE.level1, DEVICE | BLOCK],
    [PLACE.level1 + (RAM / GIB) * 8n, PLACE.level2 | TABLE],
    [PLACE.level2, RAM | NORMAL | BLOCK],
    [PLACE.level2 + 8n, (RAM + 0x20_0000n) | NORMAL | BLOCK],
    [PLACE.load, 41n],
  ];
  for (const [at, code] of [
    [PLACE.code, CODE],
    [PLACE.further, FURTHER],
  ] as const)
    for (let n = 0; n < code.length; n += 2)
      words.push([at + BigInt(n * 4), BigInt(code[n]!) | (BigInt(code[n + 1] ?? 0) << 32n)]);
  return words;
}

const EL1 = 0x3c5n;
const SCTLR = arm64SystemRegister(3, 0, 1, 0, 0);
const TTBR0 = arm64SystemRegister(3, 0, 2, 0, 0);
const TCR = arm64SystemRegister(3, 0, 2, 0, 2);
const MAIR = arm64SystemRegister(3, 0, 10, 2, 0);
/** 39 bits of address from level 1 on, 4 KiB pages, write-back and inner shareable walks, no upper half. */
const TCR_VALUE = 25n | (1n << 8n) | (1n << 10n) | (3n << 12n) | (1n << 23n) | (2n << 32n);
const MMU_AND_CACHES = 0x1005n;

/** Puts a vCPU at the beginning of the guest's code, its page tables in use. */
export function startGuest(vcpu: KvmVcpu): void {
  const set = (name: string, value: bigint): void => vcpu.setRegister(arm64CoreRegister(name), value);
  set('pstate', EL1);
  set('pc', PLACE.code);
  set('x0', PLACE.load);
  set('x2', PLACE.store);
  set('x3', PLACE.further);
  set('x5', DONE);
  set('x6', PLACE.atomic);
  vcpu.setRegister(MAIR, 0xffn);
  vcpu.setRegister(TTBR0, PLACE.level1);
  vcpu.setRegister(TCR, TCR_VALUE);
  vcpu.setRegister(SCTLR, vcpu.register(SCTLR) | MMU_AND_CACHES);
}

/** The pages that one run touches. */
export const GUEST_PAGES: readonly bigint[] = [
  ...[PLACE.level1, PLACE.level2, PLACE.code, PLACE.load, PLACE.store, PLACE.further, PLACE.atomic],
];
