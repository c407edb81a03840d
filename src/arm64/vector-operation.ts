import { type Program } from '../api/index.js';
import type { Status } from './errno.js';
import { GITS, gitsCbaser } from './registers.js';
import type { VectorStep } from './vector.js';
import type { Vgic } from './vgic.js';

/** A step that does something to the GIC and has one status. */
export type OperationStep = Exclude<
  Extract<VectorStep, { ret: number }>,
  { op: 'its_get' } // a read: its value counts
>;

/**
 * The operation of a vector's step on a GIC. The words of a `cmds` step are to be in the queue before
 * ({@link queueWords}). Whoever drives it decides what a missing page does.
 */
export function* operationOf(vgic: Vgic, step: OperationStep): Program<Status> {
  switch (step.op) {
    case 'its_set':
      return yield* vgic.writeItsRegister(step.its ?? 0, Number(step.off), step.val);
    case 'gicr_set':
      return yield* vgic.writeRedistributorRegister(step.cpu, Number(step.off), step.val, step.size);
    case 'gicd_set':
      return vgic.writeDistributorRegister(Number(step.off), step.val);
    case 'cmds':
      return yield* vgic.writeItsRegister(step.its ?? 0, GITS.CWRITER, step.cwriter);
    case 'save_tables':
      return yield* vgic.saveTables(step.its);
    case 'restore_tables':
      return yield* vgic.restoreTables(step.its);
    case 'ctrl_reset':
      return yield* vgic.resetIts(step.its);
    case 'save_pending':
      return yield* vgic.savePendingTables();
    case 'its_ctrl_raw':
      return yield* vgic.itsControl(step.its ?? 0, step.attr);
    case 'msi_raw':
      return vgic.signalMsi({ address: step.addr, flags: step.flags, device: step.dev, event: step.ev });
    default:
      return step satisfies never;
  }
}

/** The words that commands put into the queue at an ITS's GITS_CBASER, from `offset`, wrapping at its end. */
export function* queueWords(
  vgic: Vgic,
  offset: bigint,
  commands: readonly (readonly bigint[])[],
  its = 0,
): Generator<readonly [gpa: bigint, word: bigint]> {
  const { address, pages } = gitsCbaser.decode(vgic.readItsRegister(its, GITS.CBASER).value);
  const bytes = BigInt(pages) * 4096n;
  let at = offset;
  for (const word of commands.flat()) {
    yield [address + (at % bytes), word];
    at += 8n;
  }
}

/** The GIC's internal state as a `state` step records it, with the entries of one ITS. */
export function stateOf(vgic: Vgic, its = 0): { readonly lpis: number[][]; readonly ites: number[][] } {
  const lpis = [...vgic.lpis()]
    .filter(({ intid }) => intid < 65536) // larger ones exist but are not recorded
    .map((lpi) => [lpi.intid, lpi.target, +lpi.pending, +lpi.enabled, lpi.priority, lpi.apList]);
  const ites: number[][] = [];
  for (const { device, eventBits, event, intid, collection, target } of vgic.entries(its)) {
    if (collection !== undefined) ites.push([device, eventBits, event, intid, collection, target]);
  }
  return { lpis, ites };
}
