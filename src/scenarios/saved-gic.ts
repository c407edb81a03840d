import { cte, createSavedVgic, dte, encodeConfiguration, ite, type Vgic } from '../arm64/index.js';
import { PAGE_BYTES, START } from './scenario-run.js';

/** Pages of the guest whose GIC is restored: 4 MiB. */
export const GIC_PAGES = 1024;

const BASE = START as bigint;
const CONFIGURATION = BASE;
const PENDING = [BASE + 0x1_0000n, BASE + 0x2_0000n] as const;
const COLLECTIONS = BASE + 0x5_0000n;
const QUEUE = BASE + 0x7_0000n;
const DEVICES = BASE + 0x8_0000n;
const ITTS = [BASE + 0x20_0000n, BASE + 0x21_0000n] as const;
/** The first is masked: KVM has it on no list of a vCPU's, so that its pending bit is nowhere but in memory. */
const LPIS = [
  { device: 0, event: 3, intid: 8192, collection: 0, enabled: false },
  { device: 0, event: 200, intid: 8300, collection: 1, enabled: true },
  { device: 1, event: 5, intid: 9000, collection: 0, enabled: true },
] as const;
/** Device 600's entry is on the table's second page, so that the walk meets a missing page after it has consumed pending bits. */
const DEVICE_IDS = [7, 600] as const;

/** What the source host saved: two vCPUs, two devices, three LPIs, all pending. */
export function savedGicMemory(): Uint8Array {
  const bytes = new Uint8Array(GIC_PAGES * PAGE_BYTES);
  const words = new DataView(bytes.buffer);
  const put = (address: bigint, word: bigint): void => words.setBigUint64(Number(address - BASE), word, true);
  put(COLLECTIONS, cte.encode({ collection: 0, target: 0, valid: true }));
  put(COLLECTIONS + 8n, cte.encode({ collection: 1, target: 1, valid: true }));
  DEVICE_IDS.forEach((id, at) => {
    const next = (DEVICE_IDS[at + 1] ?? id) - id;
    put(DEVICES + BigInt(id * 8), dte.encode({ eventBits: 8, itt: ITTS[at]!, next, valid: true }));
  });
  LPIS.forEach(({ device, event, intid, collection, enabled }, at) => {
    const following = LPIS[at + 1];
    const next = following?.device === device ? following.event - event : 0;
    put(ITTS[device] + BigInt(event * 8), ite.encode({ collection, intid, next }));
    bytes[Number(CONFIGURATION - BASE) + intid - 8192] = encodeConfiguration({
      enabled,
      priority: 0xa0,
    });
    const byte = Number(PENDING[collection] - BASE) + (intid >>> 3);
    bytes[byte]! |= 1 << (intid & 7);
  });
  return bytes;
}

/** The GIC with its registers programmed, as just before KVM_DEV_ARM_ITS_RESTORE_TABLES. It restores as KVM does. */
export function programmedGic(): Vgic {
  return createSavedVgic(
    {
      distributor: { iidr: 0x4b00_343bn, ctlr: 0x52n },
      redistributors: PENDING.map((pending, vcpuId) => ({
        vcpuId,
        propbaser: CONFIGURATION | 0x78fn,
        pendbaser: pending | 0x780n,
        ctlr: 1n,
      })),
      itses: [
        {
          base: 0x808_0000n,
          cbaser: 0x8000_0000_0000_0780n | QUEUE,
          iidr: 0x4b00_043bn,
          creadr: 0n,
          cwriter: 0n,
          baser0: 0x8107_0000_0000_0600n | DEVICES,
          baser1: 0x8407_0000_0000_0600n | COLLECTIONS,
          ctlr: 1n,
        },
      ],
    },
    { mode: 'kvm' },
  );
}

const TABLES: readonly (readonly [start: bigint, name: string])[] = [
  [CONFIGURATION, 'LPI configuration table'],
  [PENDING[0], 'pending table of vCPU 0'],
  [PENDING[1], 'pending table of vCPU 1'],
  [COLLECTIONS, 'collection table'],
  [QUEUE, 'command queue'],
  [DEVICES, 'device table'],
  [ITTS[0], 'ITT of device 7'],
  [ITTS[1], 'ITT of device 600'],
];

/** The table that an address lies in. */
export const tableAt = (address: bigint): string =>
  TABLES.findLast(([start]) => address >= start)?.[1] ?? 'guest memory';
