import { type CommandWords, encodeCommand, GICR, GITS, type ItsCommand } from 'demand-paging/arm64';
import { MEMSLOTS, PLACE, vmOf } from '../its/arbitrary/geometry.js';
import { enableIts, level1Words, setupSteps } from '../its/arbitrary/registers.js';
import { type Script, type ScriptStep } from '../its/script.js';

const VCPU_IDS = [0, 1];
const LPI = 8192;
const DEVICES = [3, 600];
const EVENTS = [0, 5, 31];

const commands = (...list: ItsCommand[]): ScriptStep => ({
  op: 'cmds',
  its: 0,
  cmds: list.map(encodeCommand) as CommandWords[],
});

/** One operation each, so that each is met by memory that is missing. */
const apart = (...list: ItsCommand[]): ScriptStep[] => list.map((command) => commands(command));

/**
 * All that a guest and its VMM do with an ITS: every command, saving, restoring into a new VM, and enabling.
 */
export function gicLife(indirect: boolean): Script {
  const setup = setupSteps({ indirect, devicePages: 1, forwarding: true, skipped: 0n }, VCPU_IDS.length, 1);
  const mapped = DEVICES.flatMap((device, at) =>
    EVENTS.map((event): ItsCommand => {
      const intid = LPI + at * 4096 + event;
      return { kind: 'MAPTI', device, event, intid, collection: event % 2 };
    }),
  );
  const device = DEVICES[0]!;
  const redistributor = (off: number, val: bigint, size: 4 | 8): ScriptStep => ({
    op: 'gicr_set',
    cpu: 0,
    off: BigInt(off),
    val,
    size,
  });
  const registers = setup.filter(({ op }) => op !== 'gicr_set');
  const enabling = setup.filter(({ op }) => op === 'gicr_set');
  return {
    id: indirect ? 'life-two-level' : 'life-flat',
    family: 'census',
    index: 0,
    desc: `a life of an ITS with ${indirect ? 'two-level' : 'flat'} device tables`,
    vm: { ...vmOf(VCPU_IDS, 1), memslots: MEMSLOTS.map((slot) => ({ ...slot })) },
    mem0: [...(indirect ? level1Words(1) : []), ...pendingAndConfiguration()],
    steps: [
      ...enabling,
      ...registers,
      enableIts(0),
      ...apart(
        ...VCPU_IDS.map((target): ItsCommand => {
          return { kind: 'MAPC', collection: target, target, valid: true };
        }),
        ...DEVICES.map((id, at): ItsCommand => {
          return { kind: 'MAPD', device: id, eventBits: 6, itt: PLACE.itt(at), valid: true };
        }),
        ...mapped,
        { kind: 'MAPI', device, event: LPI + 100, collection: 0 },
        { kind: 'INV', device, event: 0 },
        { kind: 'INVALL', collection: 0 },
        { kind: 'MOVI', device, event: 5, collection: 0 },
        { kind: 'MOVALL', from: 0, to: 1 },
        { kind: 'INT', device, event: 0 },
        { kind: 'CLEAR', device, event: 0 },
        { kind: 'SYNC', target: 0 },
        { kind: 'DISCARD', device, event: 31 },
      ),
      redistributor(GICR.INVLPIR, BigInt(LPI), 8),
      redistributor(GICR.INVALLR, 0n, 8),
      { op: 'msis', its: 0, list: [[device, 0]] },
      { op: 'save_pending' },
      { op: 'save_tables', its: 0 },
      { op: 'new_vm' },
      ...registers,
      ...enabling.filter((step) => 'off' in step && step.off !== BigInt(GICR.CTLR)),
      { op: 'restore_tables', its: 0 },
      ...enabling.filter((step) => 'off' in step && step.off === BigInt(GICR.CTLR)),
      { op: 'its_set', its: 0, off: BigInt(GITS.CTLR), val: 1n },
      commands({ kind: 'MAPD', device, eventBits: 6, itt: PLACE.itt(0), valid: false }),
    ],
  };
}

/** Every LPI enabled, some pending on each vCPU. */
function pendingAndConfiguration(): (readonly [bigint, bigint])[] {
  const all = 0xa1a1_a1a1_a1a1_a1a1n;
  const configuration = [0n, 8n, 16n, 24n, 4096n, 4104n, 4120n].map((at): readonly [bigint, bigint] => [
    PLACE.configuration + at,
    all,
  ]);
  const pending = VCPU_IDS.map((cpu): readonly [bigint, bigint] => [
    PLACE.pending(cpu) + 1024n,
    0x8000_0021n,
  ]);
  return [...configuration, ...pending];
}
