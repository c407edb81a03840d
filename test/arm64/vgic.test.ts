import { describe, expect, it } from 'vitest';
import {
  commandBytes,
  ite,
  KERNELS,
  Vgic,
  type ItsCommand,
  type VgicOptions,
} from '../../src/arm64/index.js';
import { GuestMemory } from './guest-memory.js';
import { buildImage, LAYOUT, prepareVgic, stateOf, type Image } from './its-image.js';

const EMPTY: Image = { vcpuIds: [0, 1], indirect: false, collections: [], devices: [] };

/** An enabled ITS and a way to send it commands. */
function machine(options: Partial<VgicOptions> = {}, image = EMPTY) {
  const { memory } = buildImage(image);
  const vgic = prepareVgic(memory, { ...image, ...options });
  memory.run(vgic.writeItsRegister(0, 0, 1n));
  const send = (...commands: ItsCommand[]): number => {
    let at = Number(vgic.readItsRegister(0, 0x88).value);
    for (const command of commands) {
      memory.page(LAYOUT.queue).set(commandBytes(command), at);
      at += 32;
    }
    return memory.run(vgic.writeItsRegister(0, 0x88, BigInt(at)));
  };
  return { memory, vgic, send };
}

const MAPD: ItsCommand = { kind: 'MAPD', device: 7, eventBits: 9, itt: LAYOUT.itts, valid: true };
const MAPC: ItsCommand = { kind: 'MAPC', collection: 0, target: 0, valid: true };
const MAPTI: ItsCommand = { kind: 'MAPTI', device: 7, event: 3, intid: 8200, collection: 0 };
const msi = (event: number, device = 7) => ({ address: LAYOUT.itsBase + 0x1_0040n, flags: 1, device, event });
const creadr = (vgic: Vgic): bigint => vgic.readItsRegister(0, 0x90).value;

describe('commands whose memory is missing', () => {
  const missing: readonly [string, bigint, ItsCommand, (vgic: Vgic) => unknown][] = [
    ['the queue', LAYOUT.queue, MAPTI, (vgic) => [...vgic.entries()].length],
    ['the configuration of MAPTI', LAYOUT.configuration, MAPTI, (vgic) => [...vgic.entries()].length],
    ['the pending table of MAPTI', LAYOUT.pending(0), MAPTI, (vgic) => [...vgic.entries()].length],
  ];

  for (const [name, page, command, probe] of missing) {
    it(`${name}: lost in kvm mode, kept and retried in transactional mode`, () => {
      for (const mode of ['kvm', 'transactional'] as const) {
        const { memory, vgic, send } = machine({ mode });
        expect(send(MAPD, MAPC)).toBe(0);
        memory.gone.add(page);
        const before = creadr(vgic);
        const status = send(command);
        expect([status, creadr(vgic) - before]).toEqual(mode === 'kvm' ? [0, 32n] : [-14, 0n]);
        expect(probe(vgic)).toBe(0);
        expect(vgic.lpiCount).toBe(0);
        memory.gone.clear();
        // Writing GITS_CWRITER as it is starts the queue again.
        const again = memory.run(vgic.writeItsRegister(0, 0x88, vgic.readItsRegister(0, 0x88).value));
        expect(again).toBe(0);
        expect(probe(vgic)).toBe(mode === 'kvm' ? 0 : 1);
      }
    });
  }

  it('DISCARD and MAPD V=0: kvm drops the mapping and leaves a stale entry, transactional keeps both', () => {
    for (const mode of ['kvm', 'transactional'] as const) {
      for (const [page, command] of [
        [LAYOUT.itts, { kind: 'DISCARD', device: 7, event: 3 }],
        [LAYOUT.devices, { kind: 'MAPD', device: 7, eventBits: 1, itt: 0n, valid: false }],
      ] as [bigint, ItsCommand][]) {
        const { memory, vgic, send } = machine({ mode });
        send(MAPD, MAPC, MAPTI);
        memory.run(vgic.saveTables());
        memory.gone.add(page);
        const status = send(command);
        expect([status, [...vgic.entries()].length]).toEqual(mode === 'kvm' ? [0, 0] : [-14, 1]);
        memory.gone.clear();
        memory.run(vgic.writeItsRegister(0, 0x88, vgic.readItsRegister(0, 0x88).value));
        expect([...vgic.entries()].length).toBe(0);
        const stale = memory.word(page + (page === LAYOUT.itts ? 24n : 56n)) !== 0n;
        expect(stale).toBe(mode === 'kvm');
      }
    }
  });

  it('an address in no memslot is skipped in both modes: no retry could help', () => {
    for (const mode of ['kvm', 'transactional'] as const) {
      const { memory, vgic, send } = machine({ mode });
      memory.run(vgic.writeRedistributorRegister(0, 0, 0n, 4));
      memory.run(vgic.writeRedistributorRegister(0, 0x70, 0x1_0000_0000_000fn, 8));
      expect(send(MAPD, MAPC, MAPTI, { kind: 'MAPC', collection: 9, target: 1, valid: true })).toBe(0);
      expect(vgic.lpiCount).toBe(0);
      expect([...vgic.collections()].map(({ id }) => id)).toEqual([0, 9]);
    }
  });

  it('a save whose level-1 page is missing: kvm skips the devices and says 0, transactional says EFAULT', () => {
    for (const mode of ['kvm', 'transactional'] as const) {
      const image = { ...EMPTY, indirect: true, devices: [{ id: 7, eventBits: 4, entries: [] }] };
      const { memory, vgic } = machine({ mode }, image);
      memory.run(vgic.restoreTables());
      memory.gone.add(LAYOUT.devices);
      expect(memory.run(vgic.saveTables())).toBe(mode === 'kvm' ? 0 : -14);
    }
  });
});

describe('enabling LPIs with a missing pending page', () => {
  it('reads as enabled and loses bits in kvm mode, stays disabled in transactional mode', () => {
    for (const mode of ['kvm', 'transactional'] as const) {
      const { memory, vgic, send } = machine({ mode });
      send(MAPD, MAPC, MAPTI, { ...MAPTI, kind: 'MAPTI', event: 4, intid: 60000 });
      memory.run(vgic.writeRedistributorRegister(0, 0, 0n, 4));
      memory.setByte(LAYOUT.pending(0) + 8200n / 8n, 1);
      memory.setByte(LAYOUT.pending(0) + 60000n / 8n, 1);
      memory.gone.add(LAYOUT.pending(0) + 0x1000n);
      const enable = (): number => memory.run(vgic.writeRedistributorRegister(0, 0, 1n, 4));
      const pending = (): number[] => [...vgic.lpis()].filter((lpi) => lpi.pending).map(({ intid }) => intid);
      expect(enable()).toBe(mode === 'kvm' ? 0 : -14);
      expect(vgic.readRedistributorRegister(0, 0)).toBe(mode === 'kvm' ? 7n : 6n);
      expect(pending()).toEqual(mode === 'kvm' ? [8200] : []);
      memory.gone.clear();
      expect(enable()).toBe(0);
      expect(pending()).toEqual(mode === 'kvm' ? [8200] : [8200, 60000]);
    }
  });
});

describe('restore', () => {
  const image: Image = {
    ...EMPTY,
    collections: [{ id: 0, vcpu: 0 }],
    devices: [
      {
        id: 7,
        eventBits: 4,
        entries: [{ event: 1, intid: 8192, collection: 0, configuration: 1, pending: true }],
      },
    ],
  };

  it('onto what exists is EEXIST, and only kvm mode frees what was there', () => {
    for (const mode of ['kvm', 'transactional'] as const) {
      const { memory } = buildImage(image);
      const vgic = prepareVgic(memory, { ...image, mode });
      expect(memory.run(vgic.restoreTables())).toBe(0);
      const state = stateOf(vgic);
      expect(memory.run(vgic.restoreTables())).toBe(-17);
      expect([...vgic.collections()].length).toBe(mode === 'kvm' ? 0 : 1);
      if (mode === 'transactional') expect(stateOf(vgic)).toEqual(state);
      memory.run(vgic.resetIts());
      expect(vgic.lpiCount).toBe(0);
    }
  });

  it('undoes what it consumed even if the last write fails', () => {
    const { memory } = buildImage(image);
    const vgic = prepareVgic(memory, { ...image, forwarding: true });
    const before = memory.clone();
    const empty = stateOf(vgic);
    const program = vgic.restoreTables();
    let step = program.next();
    while (step.done !== true) {
      const refuse = step.value.ask === 'write';
      step = program.next(refuse ? { answer: 'fault', errno: 5 } : memory.answer(step.value));
    }
    expect(step.value).toBe(-5);
    expect(stateOf(vgic)).toEqual(empty);
    expect(memory.differingPages(before)).toEqual([]);
  });
});

describe('a restore whose second write fails', () => {
  it('takes the first one back', () => {
    const entry = (event: number, intid: number) => ({
      event,
      intid,
      collection: 0,
      configuration: 1,
      pending: true,
    });
    const image: Image = {
      ...EMPTY,
      collections: [{ id: 0, vcpu: 0 }],
      devices: [{ id: 7, eventBits: 4, entries: [entry(0, 8192), entry(1, 60000)] }],
    };
    const { memory } = buildImage(image);
    const vgic = prepareVgic(memory, image);
    const before = memory.clone();
    const program = vgic.restoreTables();
    let writes = 0;
    let step = program.next();
    while (step.done !== true) {
      const refuse = step.value.ask === 'write' && ++writes === 2;
      step = program.next(refuse ? { answer: 'fault', errno: 14 } : memory.answer(step.value));
    }
    expect(step.value).toBe(-14);
    expect(writes).toBe(4); // one, the refused one, and both put back
    expect(memory.differingPages(before)).toEqual([]);
    expect(memory.run(vgic.restoreTables())).toBe(0);
    expect([...vgic.lpis()].every(({ pending }) => pending)).toBe(true);
  });
});

describe('the checks of a restore, each alone', () => {
  const V = 1n << 63n;
  const image: Image = {
    ...EMPTY,
    collections: [{ id: 0, vcpu: 0 }],
    devices: [
      {
        id: 7,
        eventBits: 4,
        entries: [{ event: 1, intid: 8192, collection: 0, configuration: 1, pending: false }],
      },
    ],
  };
  const itte = (fields: Partial<{ collection: number; intid: number; next: number }>): bigint =>
    ite.encode({ collection: 0, intid: 8192, next: 0, ...fields });
  const device = LAYOUT.devices + 56n;
  const event1 = LAYOUT.itts + 8n;

  it.each<[string, number, bigint, bigint]>([
    ['as built', 0, event1, itte({})],
    ['next to the last event', 0, event1, itte({ next: 14 })],
    ['next just past the last event', -22, event1, itte({ next: 15 })],
    ['the smallest LPI', 0, event1, itte({ intid: 8192 })],
    ['an INTID just below', -22, event1, itte({ intid: 8191 })],
    ['an INTID of 0 is no entry', 0, event1, itte({ intid: 0, next: 60000, collection: 9 })],
    ['an INTID above what PROPBASER allows', 0, event1, itte({ intid: 200_000 })],
    ['a collection that is not there', -22, event1, itte({ collection: 1 })],
    ['16 event bits', 0, device, V | (LAYOUT.itts >> 3n) | 15n],
    ['17 event bits', -22, device, V | (LAYOUT.itts >> 3n) | 16n],
    ['an ITT outside the memslots', -14, device, V | (0x1000_0000n >> 3n) | 3n],
    ['a vcpu_id that is not there', -22, LAYOUT.collections, V | (5n << 16n)],
    ['an unmapped collection', 0, LAYOUT.collections, V | (0xffff_ffffn << 16n)],
    ['reserved bits above RDBase', 0, LAYOUT.collections, V | (0xfn << 48n)],
    ['an ICID that the table has room for', 0, LAYOUT.collections + 8n, V | 8191n],
    ['an ICID that it has not', -22, LAYOUT.collections + 8n, V | 8192n],
    ['a second collection', 0, LAYOUT.collections + 8n, V | 1n],
    ['the same collection again', -17, LAYOUT.collections + 8n, V],
  ])('%s: %i', (_, status, gpa, word) => {
    const { memory } = buildImage(image);
    memory.setWord(gpa, word);
    expect(memory.run(prepareVgic(memory, image).restoreTables())).toBe(status);
  });

  it('a device table too small for a DeviceID is the end of it; level 1 beyond 2^16 devices is EINVAL', () => {
    const indirect = { ...image, indirect: true };
    const { memory } = buildImage(indirect);
    memory.setWord(LAYOUT.devices + 64n, memory.word(LAYOUT.devices)); // devices 65536 and up
    memory.setWord(LAYOUT.devices, 0n);
    expect(memory.run(prepareVgic(memory, indirect).restoreTables())).toBe(-22);
  });
});

describe('several ITSes', () => {
  it('share LPIs: an INTID that one maps is refused by the other, whose own events are apart', () => {
    const memory = new GuestMemory();
    const vgic = new Vgic({ vcpuIds: [4, 9], itsBases: [0x808_0000n, 0x80c_0000n] });
    for (const vcpu of [0, 1]) {
      memory.run(vgic.writeRedistributorRegister(vcpu, 0x70, LAYOUT.configuration | 0xfn, 8));
      memory.run(vgic.writeRedistributorRegister(vcpu, 0x78, LAYOUT.pending(vcpu), 8));
      memory.run(vgic.writeRedistributorRegister(vcpu, 0, 1n, 4));
    }
    const V = 1n << 63n;
    const send = (its: number, commands: ItsCommand[]): void => {
      const queue = 0x9000_0000n + BigInt(its) * 0x10_0000n;
      memory.run(vgic.writeItsRegister(its, 0x80, V | queue));
      memory.run(vgic.writeItsRegister(its, 0x100, V | (queue + 0x1_0000n)));
      memory.run(vgic.writeItsRegister(its, 0x108, V | (queue + 0x2_0000n)));
      memory.run(vgic.writeItsRegister(its, 0, 1n));
      commands.forEach((command, index) => memory.page(queue).set(commandBytes(command), index * 32));
      memory.run(vgic.writeItsRegister(its, 0x88, BigInt(commands.length * 32)));
    };
    send(0, [MAPD, { ...MAPC, target: 4 } as ItsCommand, MAPTI]);
    send(1, [
      MAPD,
      { ...MAPC, target: 9 } as ItsCommand,
      MAPTI,
      { ...MAPTI, event: 5, intid: 8201 } as ItsCommand,
    ]);
    expect([...vgic.entries(0)].map(({ event, intid }) => [event, intid])).toEqual([[3, 8200]]);
    expect([...vgic.entries(1)].map(({ event, intid }) => [event, intid])).toEqual([[5, 8201]]);
    expect(vgic.signalMsi({ ...msi(3), address: 0x809_0040n })).toBe(1);
    expect(vgic.signalMsi({ ...msi(3), address: 0x80d_0040n })).toBe(0);
    expect(vgic.signalMsi({ ...msi(5), address: 0x80d_0040n })).toBe(1);
    expect([...vgic.lpis()].map(({ intid, target, pending }) => [intid, target, pending])).toEqual([
      [8200, 0, true],
      [8201, 1, true],
    ]);
    memory.run(vgic.resetIts(0));
    expect([...vgic.lpis()].map(({ intid }) => intid)).toEqual([8201]);
  });
});

describe('translations', () => {
  it('are cached: an MSI is still delivered after its vCPU disabled LPIs through MAPC', () => {
    const { memory, vgic, send } = machine();
    send(MAPD, MAPC, MAPTI);
    memory.run(vgic.writeRedistributorRegister(1, 0, 0n, 4));
    expect(vgic.signalMsi(msi(3))).toBe(1);
    memory.run(vgic.writeRedistributorRegister(1, 0, 1n, 4));
    memory.run(vgic.writeRedistributorRegister(1, 0, 0n, 4)); // empties the cache
    expect(vgic.signalMsi(msi(3))).toBe(1);
    send({ kind: 'MAPC', collection: 0, target: 1, valid: true });
    expect(vgic.signalMsi(msi(3))).toBe(1);
    send({ kind: 'MAPTI', device: 7, event: 4, intid: 8300, collection: 0 });
    expect(vgic.signalMsi(msi(4))).toBe(-16);
    expect(vgic.signalMsi({ ...msi(3), flags: 2 })).toBe(-22);
    expect(vgic.signalMsi({ ...msi(3), flags: 0 })).toBe(1); // the cache does not look at the flag
    expect(vgic.signalMsi({ ...msi(4), flags: 0 })).toBe(-22);
    expect(vgic.signalMsi({ ...msi(3), address: 0x1000n })).toBe(-22);
  });

  it('are dropped with the entry', () => {
    const { vgic, send } = machine();
    send(MAPD, MAPC, MAPTI);
    expect(vgic.signalMsi(msi(3))).toBe(1);
    send({ kind: 'DISCARD', device: 7, event: 3 });
    expect(vgic.signalMsi(msi(3))).toBe(0);
    expect(vgic.lpiCount).toBe(0);
  });
});

describe('ap_lists', () => {
  it('keep a pending LPI alive past its entry until LPIs are disabled', () => {
    const { memory, vgic, send } = machine({}, { ...EMPTY });
    vgic.writeDistributorRegister(0, 2n);
    memory.setByte(LAYOUT.configuration + 8n, 0xa1);
    send(MAPD, MAPC, MAPTI, { kind: 'INT', device: 7, event: 3 }, { kind: 'DISCARD', device: 7, event: 3 });
    expect([...vgic.lpis()]).toMatchObject([{ intid: 8200, pending: true, apList: 0 }]);
    // Mapped again, nothing is read: the old structure is found.
    memory.setByte(LAYOUT.configuration + 8n, 0);
    send(MAPTI);
    expect([...vgic.lpis()]).toMatchObject([{ enabled: true, pending: true }]);
    send({ kind: 'DISCARD', device: 7, event: 3 });
    memory.run(vgic.writeRedistributorRegister(0, 0, 0n, 4));
    expect(vgic.lpiCount).toBe(0);
  });
});

describe('attributes', () => {
  it('are refused as the kernel refuses them', () => {
    const memory = new GuestMemory();
    const bare = new Vgic({ vcpuIds: [0] });
    expect(bare.readItsRegister(0, 0)).toEqual({ status: -6, value: 0n });
    expect(memory.run(bare.restoreTables())).toBe(0);
    expect(memory.run(bare.saveTables())).toBe(0);
    bare.setItsBase(0, LAYOUT.itsBase);
    expect(() => bare.setItsBase(0, LAYOUT.itsBase)).toThrow(TypeError);
    expect(bare.readItsRegister(0, 0x84).status).toBe(-22);
    expect(bare.readItsRegister(0, 0x40).status).toBe(-6);
    expect(memory.run(bare.writeItsRegister(0, 0x4, 0x1000n))).toBe(-22);
    expect(memory.run(bare.writeItsRegister(0, 0x90, 0x1000n))).toBe(-22);
    expect(memory.run(bare.itsControl(0, 0))).toBe(0);
    for (const [name, expected] of [
      ['7.3', -6],
      ['6.1', 0],
    ] as const) {
      const vgic = new Vgic({ vcpuIds: [0], itsBases: [LAYOUT.itsBase], quirks: KERNELS[name] });
      expect(memory.run(vgic.itsControl(0, 99))).toBe(expected);
    }
    bare.vcpusRunning = true;
    expect(memory.run(bare.restoreTables())).toBe(-16);
    expect(memory.run(bare.savePendingTables())).toBe(-16);
    expect(memory.run(bare.writeItsRegister(0, 0, 1n))).toBe(-16);
    expect(memory.run(bare.writeRedistributorRegister(0, 0, 1n, 4))).toBe(-16);
  });

  it('and operations do not overlap', () => {
    const { memory } = buildImage({ ...EMPTY, collections: [{ id: 0, vcpu: 0 }] });
    const vgic = prepareVgic(memory, EMPTY);
    const first = vgic.restoreTables();
    first.next();
    expect(() => vgic.saveTables().next()).toThrow(TypeError);
    expect(() => vgic.signalMsi(msi(1))).toThrow(TypeError);
    expect(() => vgic.clone()).toThrow(TypeError);
    first.return(0);
    expect(memory.run(vgic.saveTables())).toBe(0);
  });

  it('take only sensible vcpu_ids and indexes', () => {
    expect(() => new Vgic({ vcpuIds: [1, 1] })).toThrow(RangeError);
    expect(() => new Vgic({ vcpuIds: [-1] })).toThrow(RangeError);
    expect(() => new Vgic({ vcpuIds: [0] }).restoreTables(3).next()).toThrow(RangeError);
    expect(() => new Vgic({ vcpuIds: [0] }).readRedistributorRegister(1, 0)).toThrow(RangeError);
  });
});

describe('kernel quirks', () => {
  it('older kernels fail a save that has an unreachable device, and keep collections on a changed BASER1', () => {
    for (const [name, saved, kept] of [
      ['7.3', 0, 0],
      ['6.1', -22, 1],
    ] as const) {
      const image = {
        ...EMPTY,
        indirect: true,
        collections: [{ id: 0, vcpu: 0 }],
        devices: [{ id: 7, eventBits: 4, entries: [] }],
      };
      const { memory } = buildImage(image);
      const vgic = prepareVgic(memory, { ...image, quirks: KERNELS[name], mode: 'kvm' });
      memory.run(vgic.restoreTables());
      memory.setWord(LAYOUT.devices, 0n);
      expect(memory.run(vgic.saveTables())).toBe(saved);
      memory.run(vgic.writeItsRegister(0, 0x108, (1n << 63n) | 0x9000_0000n));
      expect([...vgic.collections()].length).toBe(kept);
    }
  });
});
