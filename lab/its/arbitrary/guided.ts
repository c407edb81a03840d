import { type CommandWords, encodeCommand, GICD, GICR, GITS, type ItsCommand } from 'demand-paging/arm64';
import * as fc from 'fast-check';
import { type Script, type ScriptStep } from '../script.js';
import { MAX_ITSES, MAX_VCPUS, PLACE, vmOf } from './geometry.js';
import { enableIts, level1Words, setupSteps } from './registers.js';

/*
 * Lives that get somewhere. Independent commands seldom meet: what one of them maps, the next hardly ever
 * names. So a life begins with what a guest does, collections, devices, entries, and goes on with a few
 * devices, events, collections and LPIs, so that each command concerns what is there: an LPI that is unmapped
 * while a vCPU's list holds it is mapped again elsewhere, a device is mapped twice, an entry loses its
 * collection. After each step its effects are looked at.
 */
const DEVICES = [0, 1, 7, 600] as const;
const EVENTS = [0, 1, 2, 5] as const;
const COLLECTIONS = [0, 1, 2] as const;
const LPIS = [8192, 8193, 8194, 8200] as const;
const EVENT_BITS = 3;
const VALID = 1n << 63n;

interface Config {
  readonly vcpuIds: readonly number[];
  readonly itses: number;
}

const anyConfig: fc.Arbitrary<Config> = fc.record({
  vcpuIds: fc.uniqueArray(fc.constantFrom(0, 1, 5, 16), { minLength: 1, maxLength: MAX_VCPUS }),
  itses: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.constant(MAX_ITSES) }),
});

const ittOf = (its: number, device: number): bigint =>
  PLACE.itt(its * DEVICES.length + DEVICES.indexOf(device as 0));

/** RDbase is an id on some kernels and an index on others: both are there, and one that is neither. */
const anyTarget = ({ vcpuIds }: Config): fc.Arbitrary<number> =>
  fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...vcpuIds) },
    { weight: 3, arbitrary: fc.nat(vcpuIds.length - 1) },
    { weight: 1, arbitrary: fc.constant(99) },
  );

const anyDevice = fc.constantFrom(...DEVICES);
const anyEvent = fc.constantFrom(...EVENTS);
const anyCollection = fc.constantFrom(...COLLECTIONS);
const mostly = (weight: number): fc.Arbitrary<boolean> => fc.nat(weight).map((n) => n > 0);

function anyCommand(config: Config, its: number): fc.Arbitrary<ItsCommand> {
  const mapDevice = fc
    .record({ device: anyDevice, valid: mostly(1) })
    .map(({ device, valid }): ItsCommand => ({
      kind: 'MAPD',
      device,
      valid,
      eventBits: EVENT_BITS,
      itt: ittOf(its, device),
    }));
  const mapCollection = fc.record({
    kind: fc.constant('MAPC' as const),
    collection: anyCollection,
    target: anyTarget(config),
    valid: mostly(2),
  });
  const mapInterrupt = fc.record({
    kind: fc.constant('MAPTI' as const),
    device: anyDevice,
    event: anyEvent,
    intid: fc.constantFrom(...LPIS),
    collection: anyCollection,
  });
  const ofEvent = fc.record({
    kind: fc.constantFrom(
      'INT' as const,
      'INT' as const,
      'DISCARD' as const,
      'DISCARD' as const,
      'CLEAR' as const,
      'INV' as const,
    ),
    device: anyDevice,
    event: anyEvent,
  });
  const move = fc.record({
    kind: fc.constant('MOVI' as const),
    device: anyDevice,
    event: anyEvent,
    collection: anyCollection,
  });
  const moveAll = fc.record({
    kind: fc.constant('MOVALL' as const),
    from: anyTarget(config),
    to: anyTarget(config),
  });
  const invalidateAll = fc.record({ kind: fc.constant('INVALL' as const), collection: anyCollection });
  return fc.oneof(
    { weight: 2, arbitrary: mapDevice },
    { weight: 3, arbitrary: mapCollection },
    { weight: 6, arbitrary: mapInterrupt },
    { weight: 8, arbitrary: ofEvent },
    { weight: 1, arbitrary: move },
    { weight: 1, arbitrary: moveAll },
    { weight: 1, arbitrary: invalidateAll },
  );
}

/** An LPI becomes pending, loses its entry, and is mapped again: by another event, in another collection. */
const anyTakeover = (its: number): fc.Arbitrary<ItsCommand[]> =>
  fc
    .record({
      from: fc.tuple(anyDevice, anyEvent),
      to: fc.tuple(anyDevice, anyEvent),
      intid: fc.constantFrom(...LPIS),
      home: anyCollection,
      elsewhere: anyCollection,
      whole: fc.boolean(),
    })
    .map(({ from, to, intid, home, elsewhere, whole }): ItsCommand[] => {
      const [device, event] = from;
      const unmap: ItsCommand = whole
        ? { kind: 'MAPD', device, eventBits: EVENT_BITS, itt: ittOf(its, device), valid: true }
        : { kind: 'DISCARD', device, event };
      return [
        { kind: 'MAPTI', device, event, intid, collection: home },
        { kind: 'INT', device, event },
        unmap,
        { kind: 'MAPTI', device: to[0], event: to[1], intid, collection: elsewhere },
      ];
    });

const commands = (its: number, list: readonly ItsCommand[]): ScriptStep => ({
  op: 'cmds',
  its,
  cmds: list.map((command): CommandWords => encodeCommand(command)),
});

/** What a guest's driver does before any interrupt arrives. */
function anyPrefix(config: Config, its: number): fc.Arbitrary<ScriptStep[]> {
  return fc
    .record({
      targets: fc.array(fc.constantFrom(...config.vcpuIds.keys()), { minLength: 3, maxLength: 3 }),
      entries: fc.uniqueArray(fc.tuple(anyDevice, anyEvent, anyCollection), {
        maxLength: LPIS.length,
        selector: ([device, event]) => device * 8 + event,
      }),
    })
    .map(({ targets, entries }) => [
      commands(its, [
        // As id and as index: one of the two is right.
        ...targets.flatMap((vcpu, collection): ItsCommand[] =>
          [config.vcpuIds[vcpu]!, vcpu].map((target) => ({ kind: 'MAPC', collection, target, valid: true })),
        ),
        ...DEVICES.map((device): ItsCommand => ({
          kind: 'MAPD',
          device,
          eventBits: EVENT_BITS,
          itt: ittOf(its, device),
          valid: true,
        })),
        ...entries.map(([device, event, collection], at): ItsCommand => ({
          kind: 'MAPTI',
          device,
          event,
          intid: LPIS[at]!,
          collection,
        })),
      ]),
    ]);
}

/** The address of GITS_TRANSLATER, and one that is in the frame as well. */
const anyDoorbell = fc.constantFrom(0x809_0040n, 0x808_0040n);

function anyAction(config: Config): fc.Arbitrary<ScriptStep[]> {
  const vcpu = fc.constantFrom(...config.vcpuIds.keys());
  const anyIts = fc.nat(config.itses - 1);
  const some = anyIts.chain((its) =>
    fc
      .array(anyCommand(config, its), { minLength: 1, maxLength: 4, size: 'max' })
      .map((list) => [commands(its, list)]),
  );
  const takeover = anyIts.chain((its) => anyTakeover(its).map((list) => [commands(its, list)]));
  const msis = fc.record({
    op: fc.constant('msis' as const),
    its: anyIts,
    list: fc.array(fc.tuple(anyDevice, anyEvent), { minLength: 1, maxLength: 4 }),
  });
  const rawMsi = fc.record({
    op: fc.constant('msi_raw' as const),
    addr: anyDoorbell,
    flags: fc.constant(1),
    dev: anyDevice,
    ev: anyEvent,
  });
  const lpis = fc.record({ cpu: vcpu, on: fc.boolean() }).map(({ cpu, on }): ScriptStep => ({
    op: 'gicr_set',
    cpu,
    off: BigInt(GICR.CTLR),
    val: on ? 1n : 0n,
    size: 4,
  }));
  const typer2 = fc.nat(1).map((bit): ScriptStep => ({
    op: 'gicd_set',
    off: BigInt(GICD.TYPER2),
    val: BigInt(bit),
    size: 4,
  }));
  /** On one that was restored already: the first fails, the next succeeds and has every device twice. */
  const restores = fc
    .record({ its: anyIts, times: fc.integer({ min: 1, max: 3 }) })
    .map(({ its, times }): ScriptStep[] => [
      { op: 'save_tables', its },
      ...Array.from({ length: times }, (): ScriptStep => ({ op: 'restore_tables', its })),
    ]);
  /** Another value of a table's register, while the ITS is off. */
  const rebase = fc
    .record({ its: anyIts, table: fc.boolean(), valid: mostly(2) })
    .map(({ its, table, valid }): ScriptStep[] => {
      const set = (off: number, val: bigint): ScriptStep => ({ op: 'its_set', its, off: BigInt(off), val });
      const [off, base] = table ? [GITS.BASER0, PLACE.devices(its)] : [GITS.BASER1, PLACE.collections(its)];
      const value = (valid ? VALID : 0n) | base;
      return [set(GITS.CTLR, 0n), set(off, value | (1n << 10n)), set(off, VALID | base), enableIts(its)];
    });
  const page = fc.oneof(
    fc.constantFrom(...config.vcpuIds.keys()).map((cpu) => PLACE.pending(cpu)),
    anyIts.map((its) => PLACE.devices(its)),
    fc.tuple(anyIts, anyDevice).map(([its, device]) => ittOf(its, device)),
    fc.constant(PLACE.configuration),
  );
  const failing = fc.record({
    op: fc.constantFrom('miss_page' as const, 'protect_page' as const),
    gpa: page,
  });
  const one = (arbitrary: fc.Arbitrary<ScriptStep>): fc.Arbitrary<ScriptStep[]> =>
    arbitrary.map((step) => [step]);
  return fc.oneof(
    { weight: 10, arbitrary: some },
    { weight: 3, arbitrary: takeover },
    { weight: 3, arbitrary: one(msis) },
    { weight: 2, arbitrary: one(rawMsi) },
    { weight: 2, arbitrary: one(lpis) },
    { weight: 1, arbitrary: one(typer2) },
    { weight: 2, arbitrary: restores },
    { weight: 1, arbitrary: rebase },
    // A page fails for one step and is then there again.
    {
      weight: 2,
      arbitrary: fc
        .tuple(failing, fc.oneof(some, restores))
        .map(([fail, steps]) => [fail, ...steps, { op: 'fill_page' as const, gpa: fail.gpa }]),
    },
    { weight: 1, arbitrary: one(failing) },
  );
}

/** Makes the state visible: which LPIs are pending where, and what would be saved. */
const observe = (itses: number): ScriptStep[] => [
  { op: 'save_pending' },
  ...Array.from({ length: itses }, (_, its): ScriptStep => ({ op: 'save_tables', its })),
];

/** The LPIs' configuration, enabled or not, and a pending bit for some of them. */
const anyLpis = fc
  .record({
    enabled: fc.nat(15),
    pending: fc.array(fc.nat(0xff), { minLength: MAX_VCPUS, maxLength: MAX_VCPUS }),
  })
  .map(({ enabled, pending }): (readonly [bigint, bigint])[] => {
    const byte = (lpi: number): bigint => ((enabled >> lpi) & 1 ? 0xa1n : 0xa0n);
    return [
      [PLACE.configuration, byte(0) | (byte(1) << 8n) | (byte(2) << 16n)],
      [PLACE.configuration + 8n, byte(3)],
      ...pending.map((bits, cpu) => [PLACE.pending(cpu) + 1024n, BigInt(bits)] as const),
    ];
  });

/** @see the top of the file */
export const anyGuidedLife: fc.Arbitrary<Script> = anyConfig.chain((config) => {
  const { vcpuIds, itses } = config;
  const each = Array.from({ length: itses }, (_, its) => its);
  return fc
    .record({
      indirect: fc.boolean(),
      forwarding: mostly(3),
      lpis: anyLpis,
      prefix: fc.tuple(...each.map((its) => anyPrefix(config, its))),
      actions: fc.array(fc.tuple(anyAction(config), mostly(4)), { minLength: 1, maxLength: 10, size: 'max' }),
      restored: fc.boolean(),
    })
    .map(({ indirect, forwarding, lpis, prefix, actions, restored }): Script => {
      const begin = setupSteps({ indirect, devicePages: 1, forwarding, skipped: 0n }, vcpuIds.length, itses);
      const list = DEVICES.flatMap((device) => EVENTS.map((event) => [device, event] as const));
      const again: ScriptStep[] = [
        { op: 'new_vm' },
        ...begin,
        ...each.map((its): ScriptStep => ({ op: 'restore_tables', its })),
        ...each.map(enableIts),
        ...observe(itses),
      ];
      return {
        id: 'J',
        family: 'J',
        index: 0,
        desc: 'a guided life of a GIC',
        vm: vmOf(vcpuIds, itses),
        mem0: [...level1Words(itses), ...lpis],
        steps: [
          ...begin,
          ...each.map(enableIts),
          ...prefix.flat(),
          ...actions.flatMap(([steps, looked]) => (looked ? [...steps, ...observe(itses)] : steps)),
          ...each.map((its): ScriptStep => ({ op: 'msis', its, list })),
          ...observe(itses),
          ...(restored ? again : []),
        ],
      };
    });
});
