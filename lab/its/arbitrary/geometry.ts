import { type VectorVm } from 'demand-paging/arm64';

/**
 * Where the things of a random VM lie. Every structure has room for what the arbitraries ask for, and no
 * more.
 */
export const RAM = 0x8000_0000n;
export const MEMSLOTS = [
  { gpa: RAM, size: 0x40_0000n },
  { gpa: RAM + 0x80_0000n, size: 0x1_0000n }, // beyond a hole
];
export const RAM_BYTES = 0x41_0000;

const KIB_64 = 0x1_0000n;
export const MAX_VCPUS = 4;
export const MAX_ITSES = 2;

export const PLACE = {
  configuration: RAM,
  pending: (vcpu: number): bigint => RAM + KIB_64 * BigInt(1 + vcpu),
  collections: (its: number): bigint => RAM + KIB_64 * BigInt(5 + its),
  queue: (its: number): bigint => RAM + KIB_64 * BigInt(7 + its),
  devices: (its: number): bigint => RAM + KIB_64 * BigInt(10 + 2 * its),
  block: (its: number, n: number): bigint => RAM + KIB_64 * BigInt(14 + 4 * its + n),
  itt: (n: number): bigint => RAM + 0x20_0000n + BigInt(n) * 0x1000n,
  /** In the second slot, across its end, in the hole, and nowhere near. */
  odd: [RAM + 0x80_0000n, RAM + 0x80_f000n, RAM + 0x50_0000n, 0xf_ffff_0000_0000n],
} as const;

export const BLOCKS = 4;

export const vmOf = (vcpuIds: readonly number[], itses: number): VectorVm => ({
  memslots: MEMSLOTS.map((slot) => ({ ...slot })),
  vcpu_ids: [...vcpuIds],
  its_base: 0x808_0000n,
  ...(itses > 1 ? { more_its_bases: [0x900_0000n] } : {}),
  gicd_base: 0x800_0000n,
  gicr_base: 0x80a_0000n,
});
