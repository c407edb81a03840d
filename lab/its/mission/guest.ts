/** The guest of the mission: where its memory is, what its vCPUs do, and which interrupts it has. */
export const RAM = 0x8000_0000n;
export const RAM_BYTES = 0x18_0000;
export const PAGE = 4096;
export const GICD_BASE = 0x800_0000n;
export const ITS_BASE = 0x808_0000n;
export const GICR_BASE = 0x80a_0000n;
export const VCPU_IDS = [0, 1];

const KIB_64 = 0x1_0000n;

export const PLACE = {
  configuration: RAM,
  pending: (vcpu: number): bigint => RAM + KIB_64 * BigInt(1 + vcpu),
  collections: RAM + KIB_64 * 3n,
  queue: RAM + KIB_64 * 4n,
  /** Level 1 of the device table, and its blocks. */
  devices: RAM + KIB_64 * 5n,
  block: (n: number): bigint => RAM + KIB_64 * BigInt(6 + n),
  itt: (n: number): bigint => RAM + 0x9_0000n + BigInt(n) * 0x8000n,
  code: RAM + 0x10_0000n,
  data: (vcpu: number): bigint => RAM + 0x11_0000n + BigInt(vcpu * DATA_PAGES * PAGE),
} as const;

/** Pages that each vCPU reads and writes. */
export const DATA_PAGES = 8;
/** No memory: a store there is how a vCPU says that it is done. */
export const DONE = 0x1000_0000n;

/*
 *   ldr x3, [x0]; add x4, x4, x3; str x4, [x0, #8]; add x0, x0, #4096; subs x1, x1, #1; b.ne 0
 *   str x4, [x2]; b .
 */
export const CODE = Uint32Array.of(
  0xf9400003,
  0x8b030084,
  0xf9000404,
  0x91400400,
  0xf1000421,
  0x54ffff61,
  0xf9000044,
  0x14000000,
);

/** What a vCPU's first word of data page `n` is. */
export const dataWord = (vcpu: number, n: number): bigint => BigInt(0x1000 * (vcpu + 1) + n);

export const sumOf = (vcpu: number): bigint =>
  Array.from({ length: DATA_PAGES }, (_, n) => dataWord(vcpu, n)).reduce((a, b) => a + b);

export interface GuestDevice {
  readonly id: number;
  readonly eventBits: number;
  readonly itt: bigint;
  readonly events: readonly GuestEvent[];
}

export interface GuestEvent {
  readonly event: number;
  readonly intid: number;
  /** ICID and vCPU index are the same. */
  readonly collection: number;
  readonly pending: boolean;
  /** Whether the guest's driver takes it, or has it masked. */
  readonly enabled: boolean;
}

/** Blocks 0 and 2 of the device table hold devices; block 1 is there and empty, as after an unplug. */
export const BLOCKS = 3;
const IDS = [3, 7, 40, 600, 2000, 16_389, 17_000, 24_000];

/** Some have events close together, some far apart; their LPIs are spread over the tables. */
export const DEVICES: readonly GuestDevice[] = IDS.map((id, n) => {
  const wide = n % 3 === 2;
  return {
    id,
    eventBits: wide ? 12 : 5,
    itt: PLACE.itt(n),
    events: Array.from({ length: 8 }, (_, at): GuestEvent => ({
      event: wide ? at * 500 : at * 3,
      intid: 8192 + n * 6000 + at * 7,
      collection: (n + at) % VCPU_IDS.length,
      pending: (n + at) % 3 !== 0,
      enabled: at % 4 !== 1,
    })),
  };
});

export const EVENTS = DEVICES.flatMap(({ id, events }) => events.map((event) => ({ device: id, ...event })));
