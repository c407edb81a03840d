import { dte, ite, cte } from 'demand-paging/arm64';
import * as fc from 'fast-check';
import { type Script, type ScriptStep } from '../script.js';
import { anyCommand, anyCollection, anyDevice, anyEvent, anyIntid } from './commands.js';
import { MAX_ITSES, MAX_VCPUS, PLACE, vmOf } from './geometry.js';
import { anyRegisterStep, anySetup, enableIts, level1Words, setupSteps } from './registers.js';

const U64 = (1n << 64n) - 1n;
const PAGE = 4096n;

const anyWord = fc.bigInt({ min: 0n, max: U64 });

/** A word where a table is: well-formed, noise, or nothing. */
function anyTableWord(its: number): fc.Arbitrary<readonly [bigint, bigint]> {
  const entry = fc.oneof(
    fc
      .record({
        collection: anyCollection,
        target: fc.constantFrom(0, 1, 5, 99, 0xffff_ffff),
        valid: fc.boolean(),
      })
      .map(cte.encode),
    fc
      .record({
        eventBits: fc.constantFrom(1, 3, 9, 17, 32),
        itt: fc.nat(15).map(PLACE.itt),
        next: fc.constantFrom(0, 1, 6, 593, 16_383),
        valid: fc.boolean(),
      })
      .map(dte.encode),
    fc
      .record({ collection: anyCollection, intid: anyIntid, next: fc.constantFrom(0, 1, 2, 31) })
      .map(ite.encode),
    fc.constant(0n),
    anyWord,
  );
  const place = fc.oneof(
    fc.nat(3).map((n) => PLACE.collections(its) + BigInt(n * 8)),
    fc.constantFrom(0, 1, 7, 600).map((id) => PLACE.devices(its) + BigInt(id * 8)),
    fc.constantFrom(0, 1, 7, 600).map((id) => PLACE.block(its, 0) + BigInt(id * 8)),
    fc.tuple(fc.nat(15), fc.nat(5)).map(([n, event]) => PLACE.itt(n) + BigInt(event * 8)),
  );
  return fc.tuple(place, entry);
}

/** LPI configuration and pending bits: a word each where the INTIDs of {@link anyIntid} are. */
const anyLpiWord: fc.Arbitrary<readonly [bigint, bigint]> = fc.tuple(
  fc.oneof(
    fc
      .constantFrom(0n, 8n, 64n, 4096n, 11_808n, 32_760n, 32_768n, 57_336n)
      .map((at) => PLACE.configuration + at),
    fc
      .tuple(fc.nat(MAX_VCPUS - 1), fc.constantFrom(1024n, 1032n, 1536n, 2496n, 5112n, 5120n, 8184n))
      .map(([cpu, at]) => PLACE.pending(cpu) + at),
  ),
  anyWord,
);

const anyPage = fc.oneof(
  fc.constantFrom(PLACE.configuration, PLACE.configuration + PAGE, PLACE.configuration + 2n * PAGE),
  fc.tuple(fc.nat(MAX_VCPUS - 1), fc.nat(1)).map(([cpu, n]) => PLACE.pending(cpu) + BigInt(n) * PAGE),
  fc
    .tuple(fc.nat(MAX_ITSES - 1), fc.constantFrom(PLACE.collections, PLACE.queue, PLACE.devices))
    .map(([its, place]) => place(its)),
  fc.nat(MAX_ITSES - 1).map((its) => PLACE.devices(its) + PAGE),
  fc.nat(MAX_ITSES - 1).map((its) => PLACE.block(its, 0)),
  fc.nat(15).map(PLACE.itt),
);

interface Config {
  readonly vcpuIds: readonly number[];
  readonly itses: number;
}

function anyAction({ vcpuIds, itses }: Config): fc.Arbitrary<ScriptStep> {
  const its = fc.nat(itses - 1);
  const commands = fc.record({
    op: fc.constant('cmds' as const),
    its,
    cmds: fc.array(anyCommand(vcpuIds), { minLength: 1, maxLength: 8 }),
  });
  const control = fc.record({
    op: fc.constantFrom(...(['save_tables', 'save_tables', 'restore_tables', 'ctrl_reset'] as const)),
    its,
  });
  const msis = fc.record({
    op: fc.constant('msis' as const),
    its,
    list: fc.array(fc.tuple(anyDevice, anyEvent), { minLength: 1, maxLength: 6 }),
  });
  const rawMsi = fc.record({
    op: fc.constant('msi_raw' as const),
    addr: fc.constantFrom(0x808_0000n, 0x809_0040n, 0x809_ffffn, 0x80a_0000n, 0x901_0040n, 0n),
    flags: fc.constantFrom(0, 1, 3),
    dev: anyDevice,
    ev: anyEvent,
  });
  return fc.oneof(
    { weight: 12, arbitrary: commands },
    { weight: 4, arbitrary: anyRegisterStep(vcpuIds.length, itses) },
    { weight: 3, arbitrary: control },
    { weight: 2, arbitrary: fc.constant<ScriptStep>({ op: 'save_pending' }) },
    { weight: 3, arbitrary: msis },
    { weight: 1, arbitrary: rawMsi },
    {
      weight: 1,
      arbitrary: fc.record({
        op: fc.constant('its_ctrl_raw' as const),
        its,
        attr: fc.constantFrom(0, 3, 5, 77),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        op: fc.constant('mem_write' as const),
        words: fc.array(fc.oneof(its.chain(anyTableWord), anyLpiWord), { minLength: 1, maxLength: 4 }),
      }),
    },
    { weight: 2, arbitrary: fc.record({ op: fc.constantFrom('miss_page' as const), gpa: anyPage }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('fill_page' as const), gpa: anyPage }) },
  );
}

const anyConfig: fc.Arbitrary<Config> = fc.record({
  vcpuIds: fc.uniqueArray(fc.constantFrom(0, 1, 5, 16, 40), { minLength: 1, maxLength: MAX_VCPUS }),
  itses: fc.integer({ min: 1, max: MAX_ITSES }),
});

/** What makes the state that was reached visible: what is pending, what would be saved, which MSIs arrive. */
function epilogue(itses: number): ScriptStep[] {
  const list = [0, 1, 7, 600].flatMap((device) =>
    [0, 1, 2, 3, 4, 5].map((event) => [device, event] as const),
  );
  const each = Array.from({ length: itses }, (_, its) => its);
  return [
    { op: 'save_pending' },
    ...each.map((its): ScriptStep => ({ op: 'save_tables', its })),
    ...each.map((its): ScriptStep => ({ op: 'msis', its, list })),
    { op: 'save_pending' },
  ];
}

/**
 * A life of a GIC: it is set up, commands and everything else happen to it, it is saved, and perhaps restored
 * into a fresh VM, which is then looked at in the same way.
 */
export const anyHistory: fc.Arbitrary<Script> = anyConfig.chain((config) =>
  fc
    .record({
      setup: anySetup,
      words: fc.array(anyLpiWord, { maxLength: 8 }),
      actions: fc.array(anyAction(config), { maxLength: 12, size: 'max' }),
      restored: fc.boolean(),
      late: fc.array(anyAction(config), { maxLength: 3, size: 'max' }),
    })
    .map(({ setup, words, actions, restored, late }): Script => {
      const { vcpuIds, itses } = config;
      const each = Array.from({ length: itses }, (_, its) => its);
      const begin = setupSteps(setup, vcpuIds.length, itses);
      const again: ScriptStep[] = [
        { op: 'new_vm' },
        ...begin,
        ...each.map((its): ScriptStep => ({ op: 'restore_tables', its })),
        ...each.map(enableIts),
        ...late,
        ...epilogue(itses),
      ];
      return {
        id: 'H',
        family: 'H',
        index: 0,
        desc: 'a random life of a GIC',
        vm: vmOf(vcpuIds, itses),
        mem0: [...new Map([...level1Words(itses), ...words])],
        steps: [...begin, ...each.map(enableIts), ...actions, ...epilogue(itses), ...(restored ? again : [])],
      };
    }),
);
