import { type Program } from '../api/index.js';
import { EBUSY, ENXIO, type Status } from './errno.js';
import type { Its } from './its.js';
import { restoreCollections, restoreDevices } from './its-restore.js';
import { saveCollections, saveDevices } from './its-save.js';
import { savePendingTables } from './lpi-programs.js';
import { runFlushed, startRun } from './run.js';
import type { VgicState } from './vgic-state.js';

/** Attribute numbers of KVM_DEV_ARM_VGIC_GRP_CTRL. */
export const CONTROL = { init: 0, saveTables: 1, restoreTables: 2, savePending: 3, reset: 4 } as const;

/** KVM_DEV_ARM_VGIC_GRP_CTRL of an ITS device, by attribute number. */
export function* itsControl(vgic: VgicState, its: Its, attribute: number): Program<Status> {
  if (attribute === CONTROL.init) return 0;
  if (vgic.vcpusRunning) return -EBUSY;
  switch (attribute) {
    case CONTROL.saveTables:
      return yield* saveTables(vgic, its);
    case CONTROL.restoreTables:
      return yield* vgic.mode === 'kvm' ? restoreAsKernel(vgic, its) : restoreOrUndo(vgic, its);
    case CONTROL.reset:
      resetIts(vgic, its);
      return 0;
    default:
      return vgic.quirks.unknownItsControl === ENXIO ? -ENXIO : 0;
  }
}

/** KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES. */
export function* saveAllPending(vgic: VgicState): Program<Status> {
  if (vgic.vcpusRunning) return -EBUSY;
  return yield* runFlushed(vgic, savePendingTables);
}

function saveTables(vgic: VgicState, its: Its): Program<Status> {
  return runFlushed(vgic, function* (run) {
    const status = yield* saveDevices(run, its);
    return status !== 0 ? status : yield* saveCollections(run, its);
  });
}

/** A failure frees what the stage concerned has, also what was there before. Consumed bits are lost. */
function restoreAsKernel(vgic: VgicState, its: Its): Program<Status> {
  return runFlushed(vgic, function* (run) {
    let status = yield* restoreCollections(run, its, []);
    if (status === 0) {
      status = yield* restoreDevices(run, its);
      if (status !== 0) its.freeDevices(vgic.lpis);
    }
    if (status !== 0) its.collections.freeAll();
    return status;
  });
}

/** A failure leaves everything as it was: the GIC's state, and every pending bit in memory. */
function* restoreOrUndo(vgic: VgicState, its: Its): Program<Status> {
  const { lpis } = vgic;
  const run = startRun(vgic, true);
  const devices = its.devices.length;
  const births = lpis.births;
  const targets = lpis.target.slice(); // an LPI that an ap_list kept alive takes another where it is mapped again
  const added: number[] = [];
  const undo = (): void => {
    its.truncateDevices(devices, lpis);
    for (const id of added) its.collections.free(id);
    lpis.dropBornSince(births);
    lpis.target.set(targets);
    run.windows.discard();
  };
  let built = false;
  try {
    let status = yield* restoreCollections(run, its, added);
    if (status === 0) status = yield* restoreDevices(run, its);
    if (status !== 0) return status;
    built = true;
  } finally {
    if (!built) undo(); // failed, over a bound, or abandoned: nothing was written yet
  }
  const status = yield* run.windows.flush();
  if (status !== 0) undo();
  return status;
}

/** KVM_DEV_ARM_ITS_CTRL_RESET: table addresses stay in the registers, their valid bits do not. */
function resetIts(vgic: VgicState, its: Its): void {
  const VALID = 1n << 63n;
  its.baser0 &= ~VALID;
  its.baser1 &= ~VALID;
  its.cbaser = 0n;
  its.creadr = its.cwriter = 0;
  its.enabled = false;
  its.freeDevices(vgic.lpis);
  its.collections.freeAll();
}
