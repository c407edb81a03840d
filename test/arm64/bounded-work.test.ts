import { describe, expect, it } from 'vitest';
import {
  DemandPagingError,
  drive,
  driveSync,
  type Gpa,
  type GpaRange,
  type Program,
  type ProgramMemory,
  WINDOW_BYTES,
} from '../../src/api/index.js';
import {
  commandBytes,
  cte,
  createSavedVgic,
  dte,
  dumpImage,
  ite,
  KERNELS,
  level1,
  planCommands,
  type PlanMemory,
  planRestore,
  planSave,
  type SavedVgic,
  Vgic,
  type VgicOptions,
  WorkLimitError,
} from '../../src/arm64/index.js';
import { Device } from '../../src/arm64/device.js';
import { IntidIndex } from '../../src/arm64/intid-index.js';

/*
 * Tables that a hostile guest wrote: few pages, which name one another so often that KVM, walking them, would
 * take minutes or hours with the VM's locks held.
 */
const BASE = 0x8000_0000n;
const CONFIGURATION = BASE;
const PENDING = BASE + 0x1000_0000n;
const COLLECTIONS = BASE + 0x2000_0000n;
const QUEUE = BASE + 0x2100_0000n;
const DEVICES = BASE + 0x3000_0000n;
const BLOCK = BASE + 0x4000_0000n;
const ITT = BASE + 0x5000_0000n;
const END = BASE + 0x6000_0000n;
const VALID = 1n << 63n;

const pageOf = (words: (at: number) => bigint): Uint8Array => {
  const page = new BigUint64Array(WINDOW_BYTES / 8);
  page.forEach((_, at) => (page[at] = words(at)));
  return new Uint8Array(page.buffer);
};
const ZEROS = new Uint8Array(WINDOW_BYTES);

/** Guest memory in which a page's content is a function of its address; what is written is lost. */
class Hostile implements ProgramMemory, PlanMemory {
  held = 0;
  readonly layout = { regionAt: (gpa: Gpa) => (this.visible(gpa) ? {} : undefined) };

  constructor(private readonly content: (page: bigint) => Uint8Array | undefined) {}

  visible(gpa: bigint): boolean {
    return gpa >= BASE && gpa < END;
  }
  present(): boolean {
    return true;
  }
  isPresent(): boolean {
    return true;
  }
  readSync(address: Gpa, length: number): Uint8Array {
    return (this.content(address) ?? ZEROS).slice(0, length);
  }
  writeSync(): void {}
  async bring(): Promise<void> {}
  hint(ranges: readonly GpaRange[]): void {
    expect(ranges).not.toEqual([]);
  }
  async fetch(pages: readonly Gpa[]): Promise<Uint8Array[]> {
    this.held += pages.length;
    return pages.map((page) => this.readSync(page, WINDOW_BYTES));
  }
  release(pages: readonly Gpa[]): void {
    this.held -= pages.length;
  }
  run<R>(program: Program<R>): R {
    return driveSync(program, this);
  }
}

const within = (page: bigint, start: bigint, bytes: bigint): boolean => page >= start && page < start + bytes;
const collectionPage = pageOf((at) =>
  at === 0 ? cte.encode({ collection: 0, target: 0, valid: true }) : 0n,
);
const everyDevice = pageOf(() => dte.encode({ eventBits: 16, itt: ITT, next: 1, valid: true }));
const everyBlock = pageOf(() => level1.encode({ address: BLOCK, valid: true }));

interface Image {
  readonly memory: Hostile;
  readonly indirect: boolean;
}

/** 2^21 entries of level 1, all of which name one empty block. */
const oneBlock = (): Image => ({
  indirect: true,
  memory: new Hostile((page) => (within(page, DEVICES, 0x100_0000n) ? everyBlock : undefined)),
});

/** 65 536 devices with one translation table, of 16 bits: empty, or full. */
function oneTable(full: boolean): Image {
  const entries = (page: bigint): Uint8Array => {
    const first = Number(page - ITT) / 8;
    return pageOf((at) =>
      ite.encode({ collection: 0, intid: 70_000 + first + at, next: first + at === 0xffff ? 0 : 1 }),
    );
  };
  const cache = new Map<bigint, Uint8Array>();
  const memory = new Hostile((page) => {
    if (within(page, COLLECTIONS, 4096n)) return collectionPage;
    if (within(page, DEVICES, 0x8_0000n)) return everyDevice;
    if (!full || !within(page, ITT, 0x8_0000n)) return undefined;
    let content = cache.get(page);
    if (content === undefined) cache.set(page, (content = entries(page)));
    return content;
  });
  return { memory, indirect: false };
}

function prepared({ memory, indirect }: Image, options: Partial<VgicOptions> = {}): Vgic {
  const vgic = new Vgic({ vcpuIds: [0], itsBases: [0x808_0000n], mode: 'kvm', ...options });
  memory.run(vgic.writeRedistributorRegister(0, 0x70, CONFIGURATION | 0x78fn, 8));
  memory.run(vgic.writeRedistributorRegister(0, 0x78, PENDING | 0x780n, 8));
  memory.run(vgic.writeRedistributorRegister(0, 0, 1n, 4));
  memory.run(vgic.writeItsRegister(0, 0x80, VALID | QUEUE | 0xffn));
  const size = indirect ? (1n << 62n) | 0xffn : 7n;
  memory.run(vgic.writeItsRegister(0, 0x100, VALID | DEVICES | size));
  memory.run(vgic.writeItsRegister(0, 0x108, VALID | COLLECTIONS));
  return vgic;
}

const dumpOf = (image: Image, options = {}): ReturnType<typeof dumpImage> =>
  dumpImage(
    {
      baser0: prepared(image).readItsRegister(0, 0x100).value,
      baser1: VALID | COLLECTIONS,
      propbaser: CONFIGURATION | 0x78fn,
      pendbasers: new Map([[0, PENDING]]),
    },
    options,
  );

const HOSTILE: readonly (readonly [string, () => Image])[] = [
  ['a level 1 whose entries all name one empty block', oneBlock],
  ['devices that all name one empty translation table', () => oneTable(false)],
  ['devices that all name one full translation table', () => oneTable(true)],
];

describe.each(HOSTILE)('%s', (_, image) => {
  const maxSteps = 200_000;

  it('a plan is cut short, and says by what', async () => {
    const hostile = image();
    for (const speculation of [{}, undefined]) {
      const options = { maxSteps, ...(speculation === undefined ? {} : { speculation }) };
      using plan = await planRestore(prepared(hostile), hostile.memory, 0, options);
      expect([plan.complete, plan.cutBy]).toEqual([false, 'maxSteps']);
      expect(plan.touched.length).toBeGreaterThan(10);
    }
    expect(hostile.memory.held).toBe(0);
  });

  it('a dump is cut short, and says by what', () => {
    const hostile = image();
    const dump = hostile.memory.run(dumpOf(hostile, { maxSteps }));
    expect([dump.complete, dump.cutBy]).toEqual([false, 'maxSteps']);
  });

  it('a restore throws LIMIT_REACHED; a transactional one is undone by then', () => {
    const hostile = image();
    for (const mode of ['kvm', 'transactional'] as const) {
      const vgic = prepared(hostile, { mode, maxSteps });
      const restore = (): number => hostile.memory.run(vgic.restoreTables());
      expect(restore).toThrow(expect.objectContaining({ code: 'LIMIT_REACHED', bound: 'maxSteps' }));
      if (mode === 'kvm') continue;
      expect([...vgic.devices(), ...vgic.collections(), ...vgic.lpis()]).toEqual([]);
    }
  });

  it('the event loop goes on meanwhile, and an AbortSignal ends it', async () => {
    const hostile = image();
    const maxEntries = 2 ** 40;
    for (const way of ['plan', 'drive', 'dump'] as const) {
      const controller = new AbortController();
      const reason = new Error('enough');
      setTimeout(() => controller.abort(reason), 1);
      const vgic = prepared(hostile, { maxSteps: 2 ** 50, maxEntries, mode: 'transactional' });
      const { signal } = controller;
      const ended =
        way === 'plan'
          ? planRestore(vgic, hostile.memory, 0, { signal })
          : way === 'drive'
            ? drive(vgic.restoreTables(), hostile.memory, { signal })
            : drive(dumpOf(hostile, { maxSteps: 2 ** 50, maxEntries }), hostile.memory, { signal });
      await expect(ended).rejects.toBe(reason);
      expect(hostile.memory.held).toBe(0);
      // What was abandoned is over: the GIC takes other operations, and nothing of this one is left.
      expect(hostile.memory.run(vgic.savePendingTables())).toBe(0);
      expect([...vgic.devices(), ...vgic.collections(), ...vgic.lpis()]).toEqual([]);
    }
  });
});

describe('memory', () => {
  it.each(['7.2', '6.12', '6.1'] as const)('%s: entries that share LPIs are bounded', async (kernel) => {
    const hostile = oneTable(true);
    const vgic = prepared(hostile, { quirks: KERNELS[kernel] });
    using plan = await planRestore(vgic, hostile.memory, 0, { maxEntries: 100_000 });
    expect([plan.complete, plan.cutBy]).toEqual([false, 'maxEntries']);
    expect(plan.after.state_bytes).toBeLessThan(16 * 2 ** 20);
    const bounded = prepared(hostile, { quirks: KERNELS[kernel], maxEntries: 100_000 });
    expect(() => hostile.memory.run(bounded.restoreTables())).toThrow(WorkLimitError);
    expect([...bounded.entries()].length).toBe(100_000);
  });

  it('bounds are positive integers', () => {
    for (const bound of [0, -1, 1.5, NaN]) {
      expect(() => prepared(oneBlock(), { maxSteps: bound })).toThrow(RangeError);
      expect(() => prepared(oneBlock(), { maxEntries: bound })).toThrow(RangeError);
    }
  });
});

describe('commands', () => {
  /** An enabled ITS whose queue holds these commands, with `count` LPIs of one device. */
  function busy(count: number, commands: readonly Parameters<typeof commandBytes>[0][], maxSteps?: number) {
    const bytes = new Uint8Array(0x10_0000);
    const put = (list: readonly Parameters<typeof commandBytes>[0][]): void =>
      list.forEach((command, at) => bytes.set(commandBytes(command), at * 32));
    const memory = new Hostile((page) =>
      within(page, QUEUE, 0x10_0000n)
        ? bytes.subarray(Number(page - QUEUE), Number(page - QUEUE) + WINDOW_BYTES)
        : undefined,
    );
    const vgic = prepared({ memory, indirect: false }, maxSteps === undefined ? {} : { maxSteps });
    memory.run(vgic.writeItsRegister(0, 0, 1n));
    let queued = 0;
    const send = (list: readonly Parameters<typeof commandBytes>[0][]): Program<number> => {
      put(Array.from({ length: queued }, () => ({ kind: 'SYNC' as const, target: 0 })));
      list.forEach((command, at) => bytes.set(commandBytes(command), (queued + at) * 32));
      queued += list.length;
      return vgic.writeItsRegister(0, 0x88, BigInt(queued * 32));
    };
    const mapped = [
      { kind: 'MAPC', collection: 0, target: 0, valid: true } as const,
      { kind: 'MAPD', device: 1, eventBits: 16, itt: ITT, valid: true } as const,
      ...Array.from({ length: count }, (_, event) => ({
        kind: 'MAPTI' as const,
        device: 1,
        event,
        intid: 8192 + event,
        collection: 0,
      })),
    ];
    for (let at = 0; at < mapped.length; at += 1000) memory.run(send(mapped.slice(at, at + 1000)));
    return { vgic, memory, send: () => send(commands) };
  }

  it('INVALL as often as the queue holds it is cut short where the bound is', async () => {
    const many = Array.from({ length: 1000 }, () => ({ kind: 'INVALL', collection: 0 }) as const);
    const { vgic, memory, send } = busy(2000, many, 50_000);
    const before = vgic.readItsRegister(0, 0x90).value;
    const program = send();
    const plan = await planCommands(vgic, memory, before + 32_000n);
    expect([plan.complete, plan.cutBy]).toEqual([false, 'maxSteps']);
    plan.release();
    expect(() => memory.run(program)).toThrow(WorkLimitError);
    // The command under way was not finished: 25 whole ones of 2001 steps fit no more than 24 times.
    expect((vgic.readItsRegister(0, 0x90).value - before) / 32n).toBe(24n);
  });

  it('a save is bounded as well', async () => {
    const { vgic, memory } = busy(2000, [], 10_000);
    using whole = await planSave(vgic, memory, 0, { maxSteps: 2100 });
    expect(whole.complete).toBe(true);
    using plan = await planSave(vgic, memory, 0, { maxSteps: 1000 });
    expect([plan.complete, plan.cutBy]).toEqual([false, 'maxSteps']);
  });

  it('DISCARD of every event of a full device takes no longer each than of the first', () => {
    const device = new Device(1, 0, 16);
    for (let event = 0; event < 65_536; event++) device.add(event, event, 1);
    // Moving the rows, or mapping them anew, for each would be 2^32 steps.
    for (let event = 0; event < 65_536; event++) device.remove(device.find(event));
    expect(device.count).toBe(0);
  });
});

describe('entries of a device that come and go', () => {
  it('keep their order, whatever was removed in between', () => {
    const device = new Device(1, 0, 16);
    let expected: number[] = [];
    let random = 12_345;
    for (let turn = 0; turn < 20_000; turn++) {
      random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
      const event = (random >>> 8) % 64;
      const row = device.find(event);
      expect(row >= 0).toBe(expected.includes(event));
      if (row < 0) {
        device.add(event, event + 100, turn);
        expected.push(event);
      } else {
        expect(device.lpi(row)).toBe(event + 100);
        device.remove(row);
        expected = expected.filter((each) => each !== event);
      }
      if (turn % 97 === 0) {
        const copy = device.clone();
        expect(Array.from({ length: copy.count }, (_, at) => copy.event(at))).toEqual(expected);
      }
      if (turn % 501 === 0) {
        device.sort();
        expected.sort((a, b) => a - b);
      }
      if (turn % 251 === 0)
        expect(Array.from({ length: device.count }, (_, at) => device.event(at))).toEqual(expected);
    }
    expect(device.byteLength).toBeLessThan(4096);
  });
});

describe('INTIDs at and above 65536', () => {
  const patterns: readonly (readonly [string, (n: number) => number])[] = [
    ['one after the other', (n) => 65_536 + n],
    ...[2, 16, 17, 64, 1024, 4096, 65_535, 65_536].map(
      (stride) => [`${stride} apart`, (n: number) => 65_536 + n * stride] as const,
    ),
    ['two runs that overlap', (n) => (n % 2 === 0 ? 65_536 + n : 0x4000_0000 + n * 8)],
    ['in descending order', (n) => 0xffff_0000 - n * 7],
  ];

  it.each(patterns)('%s: no look-up takes many tries, whatever the seed', (_, intidOf) => {
    for (let seed = 0; seed < 20; seed++) {
      const index = new IntidIndex();
      for (let n = 0; n < 20_000; n++) index.add(intidOf(n), n);
      expect(index.longestProbe).toBeLessThan(256);
      for (let n = 0; n < 20_000; n += 37) expect(index.get(intidOf(n))).toBe(n);
      const copy = index.clone();
      index.delete(intidOf(0));
      expect([index.get(intidOf(0)), copy.get(intidOf(0))]).toEqual([-1, 0]);
    }
  });
});

describe('an aborted plan', () => {
  it('rejects at once though its source never answers, and lets go of what comes later', async () => {
    let answer!: (bytes: Uint8Array[]) => void;
    const released: bigint[] = [];
    const memory: PlanMemory = {
      visible: (page) => page >= BASE && page < END,
      present: () => false,
      fetch: () => new Promise((resolve) => (answer = resolve)),
      release: (pages) => void released.push(...pages),
    };
    const controller = new AbortController();
    const ended = planRestore(prepared(oneBlock()), memory, 0, { signal: controller.signal });
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(ended).rejects.toBe(reason);
    expect(released).toEqual([]);
    answer([collectionPage.slice()]);
    await new Promise((resolve) => setImmediate(resolve));
    expect(released).toEqual([COLLECTIONS]);
  });

  it('does not begin where the signal was aborted before', async () => {
    const memory = new Hostile(() => expect.unreachable());
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    await expect(planRestore(prepared(oneBlock()), memory, 0, { signal })).rejects.toBe(reason);
    await expect(drive(prepared(oneBlock()).restoreTables(), memory, { signal })).rejects.toBe(reason);
  });

  it('drive rejects at once though a page never comes', async () => {
    const memory = new Hostile(() => undefined);
    memory.isPresent = () => false;
    memory.bring = () => new Promise(() => {});
    const controller = new AbortController();
    const vgic = prepared(oneBlock());
    const ended = drive(vgic.restoreTables(), memory, { signal: controller.signal });
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(ended).rejects.toBe(reason);
    expect(() => vgic.clone()).not.toThrow();
  });
});

describe('a driver that fails', () => {
  it('ends the program: the GIC is not left in the middle of an operation', () => {
    const vgic = prepared(oneBlock());
    const memory = new Hostile(() => {
      throw new DemandPagingError('PAGE_FAILED', 'no such page');
    });
    expect(() => driveSync(vgic.restoreTables(), memory)).toThrow('no such page');
    expect(() => vgic.clone()).not.toThrow();
  });
});

describe('saved registers that KVM refuses', () => {
  const redistributor = { vcpuId: 0, propbaser: CONFIGURATION, pendbaser: PENDING, ctlr: 1n };
  const its = {
    base: 0x808_0000n,
    iidr: 0x4b00_043bn,
    cbaser: VALID | QUEUE,
    creadr: 0n,
    cwriter: 0n,
    baser0: VALID | DEVICES,
    baser1: VALID | COLLECTIONS,
    ctlr: 1n,
  };
  const saved: SavedVgic = {
    distributor: { iidr: 0x4b00_343bn, ctlr: 2n },
    redistributors: [redistributor],
    itses: [its],
  };

  it.each<readonly [string, SavedVgic, RegExp, number | undefined]>([
    ['GICD_IIDR', { ...saved, distributor: { iidr: 0n, ctlr: 0n } }, /GICD_IIDR was saved as 0x0/, 22],
    ['GITS_CREADR', { ...saved, itses: [its, { ...its, creadr: 0x10000n }] }, /GITS_CREADR of ITS 1/, 22],
    ['GITS_IIDR', { ...saved, itses: [{ ...its, iidr: 0x4b00_143bn }] }, /GITS_IIDR of ITS 0/, 22],
    [
      'a vcpu_id twice',
      { ...saved, redistributors: [redistributor, redistributor] },
      /the vcpu_id of redistributor 1, 0,/,
      undefined,
    ],
    [
      'a vcpu_id of more than 32 bits',
      { ...saved, redistributors: [{ ...redistributor, vcpuId: 2 ** 32 }] },
      /redistributor 0, 4294967296/,
      undefined,
    ],
  ])('%s: BAD_IMAGE with the place', (_, broken, message, errno) => {
    expect(() => createSavedVgic(saved)).not.toThrow();
    expect(() => createSavedVgic(broken)).toThrow(message);
    expect(() => createSavedVgic(broken)).toThrow(expect.objectContaining({ code: 'BAD_IMAGE', errno }));
  });
});
