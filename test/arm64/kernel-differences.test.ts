import { describe, expect, it } from 'vitest';
import { DemandPagingError } from '../../src/api/index.js';
import {
  commandBytes,
  cte,
  dte,
  ite,
  kernelQuirks,
  KERNELS,
  planRestore,
  planSavePending,
  type ItsCommand,
  type KernelName,
  type KernelQuirks,
  type Mode,
} from '../../src/arm64/index.js';
import { GuestMemory, LatencyMemory } from './guest-memory.js';
import { buildImage, LAYOUT, prepareVgic, stateOf, type Image } from './its-image.js';

/*
 * Where kernels differ, and what outlives a mapping: each as the source of the kernel has it, and, where a
 * vector in fixtures/its-vectors shows it too, as a real one did.
 */
const ITT = (n: number): bigint => LAYOUT.itts + BigInt(n) * 0x1000n;
const SECOND_ITS = 0x900_0000n;
const map = (device: number, itt = ITT(device)): ItsCommand => ({
  kind: 'MAPD',
  device,
  eventBits: 5,
  itt,
  valid: true,
});
const collection = (id: number, target: number): ItsCommand => ({
  kind: 'MAPC',
  collection: id,
  target,
  valid: true,
});
const unmapCollection = (id: number, target = 0): ItsCommand => ({
  kind: 'MAPC',
  collection: id,
  target,
  valid: false,
});
const mapti = (device: number, event: number, intid: number, icid = 0): ItsCommand => ({
  kind: 'MAPTI',
  device,
  event,
  intid,
  collection: icid,
});
const event = (kind: 'INT' | 'DISCARD', device: number, number: number): ItsCommand => ({
  kind,
  device,
  event: number,
});

interface Options {
  readonly quirks?: KernelQuirks;
  readonly mode?: Mode;
  readonly vcpuIds?: readonly number[];
  readonly itses?: number;
}

/** Enabled ITSes that forward, all LPIs enabled, and a way to send commands. */
function machine({ quirks = KERNELS['7.3'], mode = 'kvm', vcpuIds = [0, 1], itses = 1 }: Options = {}) {
  const memory = new GuestMemory();
  const itsBases = [LAYOUT.itsBase, SECOND_ITS].slice(0, itses);
  const vgic = prepareVgic(memory, { vcpuIds, mode, quirks, itsBases, forwarding: true, devicePages: 1 });
  for (let intid = 8192; intid < 8292; intid++)
    memory.setByte(LAYOUT.configuration + BigInt(intid - 8192), 0xa1);
  const queues = [LAYOUT.queue, LAYOUT.queue + 0x1_0000n];
  if (itses > 1) {
    memory.run(vgic.writeItsRegister(1, 0x80, (1n << 63n) | queues[1]!));
    memory.run(vgic.writeItsRegister(1, 0x100, (1n << 63n) | (LAYOUT.devices + 0x4_0000n)));
    memory.run(vgic.writeItsRegister(1, 0x108, (1n << 63n) | (LAYOUT.collections + 0x1_0000n)));
  }
  for (let its = 0; its < itses; its++) memory.run(vgic.writeItsRegister(its, 0, 1n));
  const sendTo = (its: number, ...commands: ItsCommand[]): number => {
    let at = Number(vgic.readItsRegister(its, 0x88).value);
    for (const command of commands) {
      memory.page(queues[its]! + BigInt(at)).set(commandBytes(command), at % 4096);
      at += 32;
    }
    return memory.run(vgic.writeItsRegister(its, 0x88, BigInt(at)));
  };
  const send = (...commands: ItsCommand[]): number => sendTo(0, ...commands);
  const signal = (device: number, number: number, address: bigint = LAYOUT.itsBase + 0x1_0040n): number =>
    vgic.signalMsi({ address, flags: 1, device, event: number });
  const lpi = (intid: number) => [...vgic.lpis()].find((each) => each.intid === intid);
  return { memory, vgic, send, sendTo, signal, lpi };
}

const SERIES = Object.keys(KERNELS) as KernelName[];

describe('an LPI that outlives its mapping', () => {
  /** Pending on the ap_list of vCPU 0, its entry gone. */
  const orphan = (options?: Options) => {
    const all = machine(options);
    all.send(map(1), map(2), collection(0, 0), collection(1, 1), mapti(1, 0, 8200), event('INT', 1, 0));
    all.send(event('DISCARD', 1, 0));
    expect(all.lpi(8200)).toMatchObject({ target: 0, pending: true, apList: 0 });
    return all;
  };

  it.each(SERIES)('%s: mapped again elsewhere, it takes that target or keeps its own', (kernel) => {
    const takesOver = !KERNELS[kernel].sharesLpis;
    expect(takesOver).toBe(kernel === '7.3');
    const { send, lpi } = orphan({ quirks: KERNELS[kernel] });
    send(mapti(2, 3, 8200, 1));
    expect(lpi(8200)).toMatchObject({ target: takesOver ? 1 : 0, pending: true, apList: 0 });
  });

  it('7.3: mapped again to an unmapped collection, it has no target, and no pending byte of it is saved', () => {
    const { memory, vgic, send, lpi } = orphan();
    send(mapti(2, 3, 8200, 5));
    expect(lpi(8200)).toMatchObject({ target: -1, pending: true, apList: 0 });
    expect(memory.run(vgic.savePendingTables())).toBe(0);
    expect(memory.byte(LAYOUT.pending(0) + 1025n)).toBe(0);
  });

  it('7.3: MAPD takes the mapping away as DISCARD does', () => {
    const { send, lpi } = machine();
    send(map(1), map(2), collection(0, 0), collection(1, 1), mapti(1, 0, 8200), event('INT', 1, 0), map(1));
    send(mapti(2, 0, 8200, 1));
    expect(lpi(8200)).toMatchObject({ target: 1, apList: 0 });
  });

  it('7.3: an entry that is restored takes it over, and a restore that fails gives the target back', () => {
    for (const mode of ['kvm', 'transactional'] as const) {
      const { memory, vgic, send, lpi } = orphan({ mode });
      send({ kind: 'MAPD', device: 1, eventBits: 5, itt: 0n, valid: false });
      send({ kind: 'MAPD', device: 2, eventBits: 5, itt: 0n, valid: false });
      send(unmapCollection(0), unmapCollection(1));
      memory.run(vgic.writeItsRegister(0, 0, 0n));
      memory.setWord(LAYOUT.collections, cte.encode({ collection: 1, target: 1, valid: true }));
      memory.setWord(LAYOUT.collections + 8n, 0n);
      const word = dte.encode({ eventBits: 5, itt: ITT(1), next: 0, valid: true });
      memory.setWord(LAYOUT.devices + 8n, word);
      memory.setWord(ITT(1), ite.encode({ collection: 1, intid: 8200, next: 1 }));
      memory.setWord(ITT(1) + 8n, ite.encode({ collection: 1, intid: 5, next: 0 })); // no LPI: refused
      const before = stateOf(vgic);
      expect(memory.run(vgic.restoreTables())).toBe(-22);
      if (mode === 'transactional') expect(stateOf(vgic)).toEqual(before);
      else expect(lpi(8200)).toMatchObject({ target: 1, apList: 0 });
      memory.setWord(ITT(1) + 8n, 0n);
      expect(memory.run(vgic.restoreTables())).toBe(0);
      expect(lpi(8200)).toMatchObject({ target: 1, pending: true, apList: 0 });
    }
  });
});

describe('two devices of one id', () => {
  it('MAPD V=0 frees the first of them', () => {
    const image: Image = {
      vcpuIds: [0],
      indirect: false,
      collections: [{ id: 0, vcpu: 0 }],
      devices: [{ id: 4, eventBits: 5, entries: [] }],
    };
    const { memory } = buildImage(image);
    const vgic = prepareVgic(memory, { ...image, mode: 'kvm' });
    // The second fails, which frees the collections and not the device; the third restores it once more.
    expect([1, 2, 3].map(() => memory.run(vgic.restoreTables()))).toEqual([0, -17, 0]);
    expect([...vgic.devices()].map(({ id }) => id)).toEqual([4, 4]);
    memory.run(vgic.writeItsRegister(0, 0, 1n));
    const unmap = commandBytes({ kind: 'MAPD', device: 4, eventBits: 1, itt: 0n, valid: false });
    memory.page(LAYOUT.queue).set(unmap, 0);
    memory.run(vgic.writeItsRegister(0, 0x88, 32n));
    expect([...vgic.devices()].map(({ id }) => id)).toEqual([4]);
  });
});

describe('an entry whose collection is gone', () => {
  const unmapped = (quirks: KernelQuirks) => {
    const all = machine({ quirks });
    all.send(map(1), collection(0, 0), collection(1, 0));
    all.send(mapti(1, 2, 8192, 0), mapti(1, 5, 8193, 1), mapti(1, 9, 8194, 0), unmapCollection(1));
    return all;
  };

  it.each(SERIES)('%s: next of the entry before it counts to it, or past it', (kernel) => {
    const { memory, vgic } = unmapped(KERNELS[kernel]);
    expect(memory.run(vgic.saveTables())).toBe(0);
    const saved = [2, 5, 9].map((number) => ite.decode(memory.word(ITT(1) + BigInt(number * 8))));
    expect(saved[0]!.next).toBe(kernel === '7.3' ? 7 : 3);
    expect(saved[1]).toEqual({ collection: 0, intid: 0, next: 0 });
    expect(saved[2]!.next).toBe(0);
  });

  it('a release that dereferences a null pointer there has no outcome: saving throws NOT_SUPPORTED', () => {
    const { memory, vgic } = unmapped(kernelQuirks('6.12.95'));
    expect(() => memory.run(vgic.saveTables())).toThrow(DemandPagingError);
    expect(() => memory.run(vgic.saveTables())).toThrow(/event 5 of device 1/);
  });
});

describe('what 6.1 does otherwise', () => {
  const quirks = KERNELS['6.1'];

  it('RDbase is the index of a vCPU in MAPC, MOVALL and a saved collection', () => {
    const { memory, vgic, send, lpi } = machine({ quirks, vcpuIds: [3, 5] });
    send(map(1), collection(0, 1), mapti(1, 0, 8192), collection(1, 5), collection(2, 2));
    expect([...vgic.collections()]).toEqual([{ id: 0, target: 1 }]);
    expect(lpi(8192)!.target).toBe(1);
    send({ kind: 'MOVALL', from: 1, to: 0 });
    expect(lpi(8192)!.target).toBe(0);
    expect(memory.run(vgic.saveTables())).toBe(0);
    expect(cte.decode(memory.word(LAYOUT.collections))).toEqual({ collection: 0, target: 1, valid: true });
    const fresh = prepareVgic(memory, { vcpuIds: [3, 5], mode: 'kvm', quirks });
    expect(memory.run(fresh.restoreTables())).toBe(0);
    memory.setWord(LAYOUT.collections, cte.encode({ collection: 0, target: 5, valid: true }));
    const other = prepareVgic(memory, { vcpuIds: [3, 5], mode: 'kvm', quirks });
    expect(memory.run(other.restoreTables())).toBe(-22);
  });

  it('MAPC V=0 unmaps only where its RDbase names a vCPU', () => {
    for (const kernel of SERIES) {
      const { vgic, send } = machine({ quirks: KERNELS[kernel] });
      send(collection(0, 0), unmapCollection(0, 9));
      expect([...vgic.collections()].length, kernel).toBe(kernel === '6.1' ? 1 : 0);
      send(unmapCollection(0, 1));
      expect([...vgic.collections()]).toEqual([]);
    }
  });

  it('a changed but valid GITS_BASER0 keeps the devices, one that is not valid frees them', () => {
    for (const kernel of SERIES) {
      const { memory, vgic, send } = machine({ quirks: KERNELS[kernel] });
      send(map(1));
      memory.run(vgic.writeItsRegister(0, 0, 0n));
      memory.run(vgic.writeItsRegister(0, 0x100, (1n << 63n) | (LAYOUT.devices + 0x1_0000n)));
      expect([...vgic.devices()].length, kernel).toBe(kernel === '6.1' ? 1 : 0);
      memory.run(vgic.writeItsRegister(0, 0x100, LAYOUT.devices));
      expect([...vgic.devices()]).toEqual([]);
    }
  });

  /**
   * Events of device 1, mapped in a collection of vCPU 0. `seal` moves that to vCPU 1, whose LPIs are off:
   * what is cached still arrives (1), anything else does not (-16).
   */
  const cached = (kernel: KernelName, events: number, itses = 1) => {
    const all = machine({ quirks: KERNELS[kernel], itses });
    all.memory.run(all.vgic.writeRedistributorRegister(1, 0, 0n, 4));
    for (let its = 0; its < itses; its++) {
      const itt = LAYOUT.itts + BigInt(its) * 0x1000n;
      all.sendTo(its, { kind: 'MAPD', device: 1, eventBits: 9, itt, valid: true }, collection(0, 0));
    }
    for (let number = 0; number < events; number++) all.send(mapti(1, number, 8192 + number));
    return { ...all, seal: () => all.send(collection(0, 1)) };
  };

  it('the translation cache has room for 16 of each vCPU, and the least recently used one makes it', () => {
    for (const kernel of SERIES) {
      const { signal, seal } = cached(kernel, 33);
      for (let number = 0; number < 32; number++) expect(signal(1, number)).toBe(1);
      expect(signal(1, 0)).toBe(1); // used again: now 1 is the oldest
      expect(signal(1, 32)).toBe(1);
      seal();
      expect(
        [0, 1, 2, 32].map((number) => signal(1, number)),
        kernel,
      ).toEqual(kernel === '6.1' ? [1, -16, 1, 1] : [1, 1, 1, 1]);
    }
  });

  it('the cache knows an ITS by the address of GITS_TRANSLATER only', () => {
    for (const kernel of SERIES) {
      const { signal, seal } = cached(kernel, 1);
      expect(signal(1, 0, LAYOUT.itsBase + 0x40n)).toBe(1);
      seal();
      expect(signal(1, 0, LAYOUT.itsBase + 0x40n), kernel).toBe(kernel === '6.1' ? -16 : 1);
      expect(signal(1, 0)).toBe(1);
    }
  });

  it('a DISCARD of another ITS empties it', () => {
    for (const kernel of SERIES) {
      const { signal, seal, sendTo } = cached(kernel, 1, 2);
      sendTo(1, mapti(1, 0, 8290));
      expect(signal(1, 0)).toBe(1);
      sendTo(1, event('DISCARD', 1, 0));
      seal();
      expect(signal(1, 0), kernel).toBe(kernel === '6.1' ? -16 : 1);
    }
  });

  it('a copy of the GIC has a cache of its own, which its ITSes share', () => {
    const { memory, vgic, signal, seal } = cached('6.1', 1, 2);
    expect(signal(1, 0)).toBe(1);
    seal();
    const copy = vgic.clone();
    memory.run(copy.writeItsRegister(1, 0, 0n)); // disabling the other ITS empties the cache
    const msi = { address: LAYOUT.itsBase + 0x1_0040n, flags: 1, device: 1, event: 0 };
    expect([copy.signalMsi(msi), vgic.signalMsi(msi)]).toEqual([-16, 1]);
  });

  it('disabling LPIs leaves them pending before 6.1.192', () => {
    for (const [release, pending] of [
      ['6.1.190', true],
      ['6.1.192', false],
      ['6.12.113', true],
      ['7.2.6', false],
    ] as const) {
      const { memory, vgic, send, lpi } = machine({ quirks: kernelQuirks(release) });
      send(map(1), collection(0, 0), mapti(1, 0, 8192), event('INT', 1, 0));
      memory.run(vgic.writeRedistributorRegister(0, 0, 0n, 4));
      expect(lpi(8192), release).toMatchObject({ pending, apList: -1 });
    }
  });
});

describe('MOVALL', () => {
  it('moves every LPI, whatever its target, on releases that have no filter', () => {
    for (const [release, filters] of [
      ['6.1.192', true],
      ['6.12.111', false],
      ['6.12.113', true],
      ['7.2.9', false],
      ['7.3.4', true],
    ] as const) {
      const { send, lpi } = machine({ quirks: kernelQuirks(release), vcpuIds: [0, 1, 2] });
      send(
        map(1),
        collection(0, 0),
        collection(1, 1),
        mapti(1, 0, 8192, 0),
        mapti(1, 1, 8193, 1),
        mapti(1, 2, 8194, 7),
      );
      send({ kind: 'MOVALL', from: 0, to: 2 });
      expect(
        [8192, 8193, 8194].map((intid) => lpi(intid)!.target),
        release,
      ).toEqual(filters ? [2, 1, -1] : [2, 2, 2]);
    }
  });
});

describe('GICD_TYPER2', () => {
  it.each(SERIES)('%s: set to another value, the errno is that of the kernel', (kernel) => {
    const { vgic } = machine({ quirks: KERNELS[kernel] });
    expect(vgic.writeDistributorRegister(0xc, 1n)).toBe(kernel.startsWith('7.') ? -16 : -22);
    expect(vgic.writeDistributorRegister(0xc, 0n)).toBe(0);
  });
});

describe('a page that can be read and not written', () => {
  const image: Image = {
    vcpuIds: [0, 1],
    indirect: false,
    collections: [
      { id: 0, vcpu: 0 },
      { id: 1, vcpu: 1 },
    ],
    devices: [
      {
        id: 1,
        eventBits: 5,
        entries: [
          { event: 0, intid: 8192, collection: 0, configuration: 0xa1, pending: false },
          { event: 1, intid: 8193, collection: 1, configuration: 0xa1, pending: true },
          { event: 2, intid: 8194, collection: 0, configuration: 0xa1, pending: true },
          { event: 3, intid: 8195, collection: 0, configuration: 0xa1, pending: false },
        ],
      },
    ],
  };

  it('a restore that cannot clear a pending bit fails there: kvm frees all it built, transactional undoes it', () => {
    for (const mode of ['kvm', 'transactional'] as const) {
      const { memory } = buildImage(image);
      memory.readOnly.add(LAYOUT.pending(0));
      const vgic = prepareVgic(memory, { ...image, mode });
      const before = memory.clone();
      expect(memory.run(vgic.restoreTables())).toBe(-14);
      expect(stateOf(vgic)).toEqual({ lpis: [], entries: [], collections: [], devices: [] });
      // What KVM consumed before it failed is lost; a transactional restore loses nothing.
      const changed = memory.differingPages(before);
      expect(changed).toEqual(mode === 'kvm' ? [LAYOUT.pending(1)] : []);
    }
  });

  it('an LPI that is enabled stays on the ap_list with its latch set though the bit could not be cleared', () => {
    const { memory, vgic, send, lpi } = machine();
    memory.setByte(LAYOUT.pending(0) + 1024n, 1);
    memory.readOnly.add(LAYOUT.pending(0));
    send(map(1), collection(0, 0), mapti(1, 0, 8192));
    expect([...vgic.entries()]).toEqual([]);
    expect(lpi(8192)).toMatchObject({ pending: true, apList: 0 });
  });

  it('the plan of that restore foresees the failure', async () => {
    const { memory } = buildImage(image);
    memory.readOnly.add(LAYOUT.pending(0));
    const vgic = prepareVgic(memory, { ...image, mode: 'kvm' });
    using plan = await planRestore(vgic, new LatencyMemory(memory, 1));
    const touched = [...plan.touched];
    expect(plan.status).toBe(-14);
    expect([...plan.after.lpis()]).toEqual([]);
    memory.clearTrace();
    expect(memory.run(vgic.restoreTables())).toBe(-14);
    expect([...memory.touches]).toEqual(touched.map(({ page, kind }) => [page, kind]));
  });

  it('SAVE_PENDING_TABLES stops at the first byte that it cannot write', async () => {
    const { memory } = buildImage(image);
    const vgic = prepareVgic(memory, { ...image, mode: 'kvm' });
    expect(memory.run(vgic.restoreTables())).toBe(0);
    // 8193 (of vCPU 1) is written, 8194 (of vCPU 0) is not.
    memory.readOnly.add(LAYOUT.pending(0));
    using plan = await planSavePending(vgic, new LatencyMemory(memory, 1));
    expect(plan.status).toBe(-14);
    expect(memory.run(vgic.savePendingTables())).toBe(-14);
    expect(memory.byte(LAYOUT.pending(1) + 1024n)).toBe(2);
    expect(memory.byte(LAYOUT.pending(0) + 1024n)).toBe(0);
  });

  it('a table entry on a page that was read before: DISCARD fails at once, kvm has dropped the mapping, transactional keeps it', () => {
    for (const mode of ['kvm', 'transactional'] as const) {
      // The translation table lies in the page of the LPI configuration, which INV reads in the same run.
      const { memory, vgic, send } = machine({ mode });
      const itt = LAYOUT.configuration + 0xf00n;
      send(map(1, itt), collection(0, 0), mapti(1, 0, 8192));
      memory.readOnly.add(LAYOUT.configuration);
      const status = send({ kind: 'INV', device: 1, event: 0 }, event('DISCARD', 1, 0));
      expect([status, [...vgic.entries()].length]).toEqual(mode === 'kvm' ? [0, 0] : [-14, 1]);
    }
  });
});

describe('kernelQuirks', () => {
  it.each([
    ['7.3.4+deb13-cloud-arm64', '7.3'],
    ['7.3.9', '7.3'],
    ['7.2.13+deb14-arm64', '7.2'],
    ['6.12.117+deb13-cloud-arm64', '6.12'],
    ['6.12.118', '6.12'],
    ['6.1.192', '6.1'],
    ['6.1.0-57-arm64', '6.1'],
  ] as const)('%s is %s as KERNELS has it', (release, name) => {
    expect(kernelQuirks(release)).toEqual(KERNELS[name]);
  });

  it.each(['6.1.0-50-cloud-arm64', '6.1.176', '6.12.95+deb12-arm64', '6.12.113', '7.2.6', '7.2.9'])(
    '%s is not what the last of its series is',
    (release) => {
      const series = release.split('.').slice(0, 2).join('.') as KernelName;
      expect(kernelQuirks(release)).not.toEqual(KERNELS[series]);
    },
  );

  it.each([
    '',
    'Linux',
    '7.3',
    '7.3.3',
    '7.2.7',
    '6.12.112',
    '6.12.94',
    '6.1.191',
    '6.1.0-47-arm64',
    '6.1.0',
    '6.6.30',
    '6.10.3',
    '5.10.0-30-arm64',
    '17.3.4',
  ])('%s is refused: no guess is made', (release) => {
    expect(() => kernelQuirks(release)).toThrow(
      expect.objectContaining({ code: 'NOT_SUPPORTED', hint: expect.stringContaining('KernelQuirks') }),
    );
  });
});
