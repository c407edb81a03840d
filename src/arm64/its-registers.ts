import { type Program } from '../api/index.js';
import { processCommands, queue_bytes } from './command-queue.js';
import { EBUSY, EINVAL, ENXIO, type Status } from './errno.js';
import type { Its } from './its.js';
import { GITS, gitsBaser, gitsCbaser, gitsCtlr, gitsIidr, gitsQueueOffset, gitsTyper } from './registers.js';
import { sanitiseBaser, sanitiseCbaser } from './register-sanitising.js';
import { runFlushed, type Run } from './run.js';
import type { VgicState } from './vgic-state.js';

const IIDR = gitsIidr.encode({ implementer: 0x43b, revision: 0, product: 0x4b });
const TYPER = gitsTyper.encode({
  physicalLpis: true,
  entry_bytes: 8,
  eventBits: 16,
  deviceBits: 16,
  physicalTargetAddresses: false,
});
const ID_REGISTERS: Record<number, bigint> = {
  0xffd0: 0x40n,
  0xffe0: 0x92n,
  0xffe4: 0xb4n,
  0xffe8: 0x3bn,
  0xfff0: 0x0dn,
  0xfff4: 0xf0n,
  0xfff8: 0x05n,
  0xfffc: 0xb1n,
};

/** Registers that are 4 bytes wide to the attribute interface; all others are 8. */
const isNarrow = (offset: number): boolean => offset < GITS.TYPER || offset >= GITS.PIDR4;

const isBaser = (offset: number): boolean => offset >= GITS.BASER0 && offset < GITS.BASER_END;

const exists = (offset: number): boolean =>
  isBaser(offset) ||
  (offset >= GITS.PIDR4 && offset < 0x1_0000) ||
  ([GITS.CTLR, GITS.IIDR, GITS.TYPER, GITS.CBASER, GITS.CWRITER, GITS.CREADR] as number[]).includes(offset);

/** The errno with which KVM_DEV_ARM_VGIC_GRP_ITS_REGS refuses an offset before it gets anywhere, or 0. */
function refusal(vgic: VgicState, its: Its, offset: number): Status {
  if (offset % (isNarrow(offset) ? 4 : 8) !== 0) return -EINVAL;
  if (vgic.vcpusRunning) return -EBUSY;
  if (its.base === undefined) return -ENXIO;
  return exists(offset) ? 0 : -ENXIO;
}

/** Reads a register as KVM_GET_DEVICE_ATTR of KVM_DEV_ARM_VGIC_GRP_ITS_REGS does. */
export function readItsRegister(
  vgic: VgicState,
  its: Its,
  offset: number,
): { readonly status: Status; readonly value: bigint } {
  const status = refusal(vgic, its, offset);
  return { status, value: status === 0 ? itsRegister(its, offset) : 0n };
}

/** A register's value, whatever state the device is in. */
export function itsRegister(its: Its, offset: number): bigint {
  switch (offset) {
    case GITS.CTLR:
      return gitsCtlr.encode({ enabled: its.enabled, quiescent: its.creadr === its.cwriter });
    case GITS.IIDR:
      return IIDR;
    case GITS.TYPER:
      return TYPER;
    case GITS.CBASER:
      return its.cbaser;
    case GITS.CWRITER:
      return BigInt(its.cwriter);
    case GITS.CREADR:
      return BigInt(its.creadr);
    case GITS.BASER0:
      return its.baser0;
    case GITS.BASER1:
      return its.baser1;
    default:
      return ID_REGISTERS[offset] ?? 0n;
  }
}

/** Writes a register as KVM_SET_DEVICE_ATTR does; GITS_CWRITER and GITS_CTLR execute queued commands. */
export function* writeItsRegister(vgic: VgicState, its: Its, offset: number, value: bigint): Program<Status> {
  const refused = refusal(vgic, its, offset);
  if (refused !== 0) return refused;
  switch (offset) {
    case GITS.CTLR:
      return yield* runFlushed(vgic, (run) => writeControl(run, its, gitsCtlr.decode(value).enabled));
    case GITS.IIDR:
      return gitsIidr.decode(value).revision > 0 ? -EINVAL : 0;
    case GITS.CBASER:
      writeQueueBase(its, value);
      return 0;
    case GITS.CWRITER:
      return yield* runFlushed(vgic, (run) => writeQueueEnd(run, its, value));
    case GITS.CREADR:
      return writeQueueStart(its, value);
    case GITS.BASER0:
    case GITS.BASER1:
      writeTableBase(vgic, its, offset, value);
      return 0;
    default:
      return 0; // read-only, or one of the six tables KVM does not have
  }
}

function* writeControl(run: Run, its: Its, enable: boolean): Program<Status> {
  if (!its.enabled && enable) {
    const ready = its.deviceTable.valid && its.collectionTable.valid && gitsCbaser.decode(its.cbaser).valid;
    if (!ready) return 0; // ignored, not refused
  }
  its.enabled = enable;
  if (!enable) its.cache.empty(run.vgic.lpis);
  return yield* processCommands(run, its);
}

function writeQueueBase(its: Its, value: bigint): void {
  if (its.enabled) return;
  its.cbaser = sanitiseCbaser(value);
  its.creadr = its.cwriter = 0;
}

function* writeQueueEnd(run: Run, its: Its, value: bigint): Program<Status> {
  const offset = Number(gitsQueueOffset.decode(value).offset);
  if (offset >= queue_bytes(its.cbaser)) return 0;
  its.cwriter = offset;
  return yield* processCommands(run, its);
}

function writeQueueStart(its: Its, value: bigint): Status {
  if (its.enabled) return -EBUSY;
  const offset = Number(gitsQueueOffset.decode(value).offset);
  if (offset >= queue_bytes(its.cbaser)) return -EINVAL;
  its.creadr = offset;
  return 0;
}

function writeTableBase(vgic: VgicState, its: Its, offset: number, value: bigint): void {
  if (its.enabled) return;
  const isDevice = offset === GITS.BASER0;
  const before = isDevice ? its.baser0 : its.baser1;
  const after = sanitiseBaser(value, isDevice ? 'device' : 'collection');
  if (isDevice) its.baser0 = after;
  else its.baser1 = after;
  const frees = vgic.quirks.changedTableFrees ? after !== before : !gitsBaser.decode(after).valid;
  if (!frees) return;
  if (isDevice) its.freeDevices(vgic.lpis);
  else its.collections.freeAll();
}
