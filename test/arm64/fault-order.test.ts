import { describe, expect, it } from 'vitest';
import type { Program } from '../../src/api/index.js';
import { commandBytes, type ItsCommand } from '../../src/arm64/index.js';
import type { GuestMemory } from './guest-memory.js';
import { buildImage, LAYOUT, prepareVgic, type Image } from './its-image.js';

/* The order observed on a real KVM with every page missing before each operation. */

const entry = (event: number, intid: number, collection: number) => ({
  event,
  intid,
  collection,
  configuration: 0xa1,
  pending: true,
});

const FLAT: Image = {
  vcpuIds: [0, 1],
  indirect: false,
  collections: [
    { id: 0, vcpu: 0 },
    { id: 1, vcpu: 1 },
  ],
  devices: [
    { id: 7, eventBits: 9, entries: [entry(3, 8192, 0), entry(203, 8300, 1)] },
    { id: 600, eventBits: 9, entries: [entry(1, 8192 + 4096, 0)] },
  ],
};

const NAMES: [name: string, start: bigint][] = [
  ['PROP', LAYOUT.configuration],
  ['COLL', LAYOUT.collections],
  ['CMD', LAYOUT.queue],
  ['DEV', LAYOUT.devices],
  ['PEND0', LAYOUT.pending(0)],
  ['PEND1', LAYOUT.pending(1)],
  ['L2', LAYOUT.blocks(0)],
  ['ITT0', LAYOUT.itts],
  ['ITT1', LAYOUT.itts + 0x1000n],
];

/** Runs an operation and names its first touches: `DEV+1(W)` is a write to the table's second page. */
function touches(memory: GuestMemory, program: Program<number>): string[] {
  memory.clearTrace();
  memory.run(program);
  return [...memory.touches].map(([page, kind]) => {
    const [name, start] = NAMES.findLast(([, at]) => page >= at)!;
    const index = (page - start) / 4096n;
    return `${name}${index > 0n ? `+${index}` : ''}${kind === 'W' ? '(W)' : ''}`;
  });
}

describe('its-fault-order', () => {
  it('is depth first in a restore: device, entry, configuration, pending, next entry', () => {
    const { memory } = buildImage(FLAT);
    const vgic = prepareVgic(memory, FLAT);
    expect(touches(memory, vgic.restoreTables())).toEqual([
      'COLL',
      'DEV',
      'ITT0',
      'PROP',
      'PEND0',
      'PEND1',
      'DEV+1',
      'ITT1',
      'PROP+1',
    ]);
  });

  it('adds level 1, then each block in turn, with a two-level table', () => {
    const { memory } = buildImage({ ...FLAT, indirect: true });
    const vgic = prepareVgic(memory, { ...FLAT, indirect: true });
    expect(touches(memory, vgic.restoreTables())).toEqual([
      'COLL',
      'DEV',
      'L2',
      'ITT0',
      'PROP',
      'PEND0',
      'PEND1',
      'L2+1',
      'ITT1',
      'PROP+1',
    ]);
  });

  it('writes ITT, then the device entry, then collections last in a save; level 1 is read first', () => {
    for (const indirect of [false, true]) {
      const { memory } = buildImage({ ...FLAT, indirect });
      const vgic = prepareVgic(memory, { ...FLAT, indirect });
      memory.run(vgic.restoreTables());
      const saved = touches(memory, vgic.saveTables());
      const table = indirect ? ['L2(W)', 'L2+1(W)'] : ['DEV(W)', 'DEV+1(W)'];
      const expected = ['ITT0(W)', table[0]!, 'ITT1(W)', table[1]!, 'COLL(W)'];
      expect(saved).toEqual(indirect ? ['DEV', ...expected] : expected);
    }
  });

  const command = (memory: GuestMemory, vgic: ReturnType<typeof prepareVgic>, what: ItsCommand): string[] => {
    const at = Number(vgic.readItsRegister(0, 0x88).value);
    memory.page(LAYOUT.queue).set(commandBytes(what), at);
    return touches(memory, vgic.writeItsRegister(0, 0x88, BigInt(at + 32)));
  };

  it('of commands is the queue, then what the command needs', () => {
    const { memory } = buildImage(FLAT);
    const vgic = prepareVgic(memory, FLAT);
    memory.run(vgic.restoreTables());
    memory.run(vgic.writeItsRegister(0, 0, 1n));
    const on = (what: ItsCommand): string[] => command(memory, vgic, what);
    expect(on({ kind: 'MAPTI', device: 7, event: 9, intid: 9000, collection: 1 })).toEqual([
      'CMD',
      'PROP',
      'PEND1',
    ]);
    expect(on({ kind: 'MAPTI', device: 7, event: 10, intid: 9001, collection: 77 })).toEqual(['CMD', 'PROP']);
    expect(on({ kind: 'MAPTI', device: 7, event: 11, intid: 9001, collection: 0 })).toEqual(['CMD']); // mapped already
    expect(on({ kind: 'INV', device: 7, event: 9 })).toEqual(['CMD', 'PROP']);
    expect(on({ kind: 'INVALL', collection: 0 })).toEqual(['CMD', 'PROP', 'PROP+1']);
    expect(on({ kind: 'DISCARD', device: 7, event: 9 })).toEqual(['CMD', 'ITT0(W)']);
    expect(on({ kind: 'MAPD', device: 600, eventBits: 1, itt: 0n, valid: false })).toEqual([
      'CMD',
      'DEV+1(W)',
    ]);
    expect(on({ kind: 'MAPD', device: 5000, eventBits: 1, itt: 0n, valid: false })).toEqual([
      'CMD',
      'DEV+9(W)',
    ]);
    for (const kind of ['INT', 'CLEAR'] as const) expect(on({ kind, device: 7, event: 3 })).toEqual(['CMD']);
    expect(on({ kind: 'MOVI', device: 7, event: 3, collection: 1 })).toEqual(['CMD']);
    expect(on({ kind: 'MOVALL', from: 0, to: 1 })).toEqual(['CMD']);
    expect(on({ kind: 'MAPC', collection: 9, target: 1, valid: true })).toEqual(['CMD']);
    expect(on({ kind: 'SYNC', target: 1 })).toEqual(['CMD']);
  });

  it('of older kernels leaves out the LPIs of other vCPUs', async () => {
    const { KERNELS } = await import('../../src/arm64/index.js');
    for (const [name, expected] of [
      ['7.3', ['CMD', 'PROP', 'PROP+1']],
      ['6.1', ['CMD', 'PROP']],
    ] as const) {
      const { memory } = buildImage(FLAT);
      const vgic = prepareVgic(memory, { ...FLAT, quirks: KERNELS[name] });
      memory.run(vgic.restoreTables());
      memory.run(vgic.writeItsRegister(0, 0, 1n));
      expect(command(memory, vgic, { kind: 'INVALL', collection: 1 })).toEqual(expected);
    }
  });
});
