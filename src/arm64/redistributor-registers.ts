import { type Program } from '../api/index.js';
import { replaceHalf } from './bit-field.js';
import { EBUSY, EINVAL, ENXIO, type Status } from './errno.js';
import { invalidateAll, syncPendingTable, updateConfiguration } from './lpi-programs.js';
import { FIRST_LPI } from './lpi-store.js';
import { flushApList, type Redistributor } from './redistributor.js';
import { GICD, GICR, gicrCtlr, gicrPendbaser, gicrTyper } from './registers.js';
import { sanitisePendbaser } from './register-sanitising.js';
import { retryableFailure } from './command-queue.js';
import { runFlushed, type Run } from './run.js';
import type { VgicState } from './vgic-state.js';

/** MPIDR affinity that KVM gives a vCPU: Aff0 has 16 values, Aff1 and Aff2 256. */
export const affinityOf = (vcpuId: number): number =>
  (vcpuId & 0xf) | (((vcpuId >>> 4) & 0xff) << 8) | (((vcpuId >>> 12) & 0xff) << 16);

/** A redistributor register of 64 bits, or of 32 in the low half. */
export function redistributorRegister(vgic: VgicState, vcpu: number, offset: number): bigint {
  const redistributor = vgic.redistributors[vcpu]!;
  switch (offset) {
    case GICR.CTLR: {
      const shown = vgic.revision >= 3;
      return gicrCtlr.encode({ enableLpis: redistributor.lpisEnabled, ces: shown, ir: shown, rwp: false });
    }
    case GICR.IIDR:
      return 0x4b00_043bn;
    case GICR.TYPER:
      return gicrTyper.encode({
        physicalLpis: true,
        last: vcpu === vgic.redistributors.length - 1,
        processorNumber: redistributor.vcpuId & 0xffff,
        affinity: affinityOf(redistributor.vcpuId),
      });
    case GICR.PROPBASER:
      return vgic.propbaser;
    case GICR.PENDBASER: {
      const fields = gicrPendbaser.decode(redistributor.pendbaser);
      return gicrPendbaser.encode({ ...fields, pendingTableZero: false });
    }
    default:
      return 0n;
  }
}

/** Stretches of registers that take 32-bit accesses; those of the second frame concern no LPI. */
const KNOWN: readonly (readonly [number, number])[] = [
  [GICR.CTLR, 0x14],
  [GICR.WAKER, 0x18],
  [GICR.PROPBASER, 0x80],
  [GICR.INVLPIR, 0xa8],
  [GICR.INVALLR, 0xb8],
  [GICR.SYNCR, 0xc4],
  [0xffd0, 0x1_0000],
  [0x1_0080, 0x1_0084],
  [0x1_0100, 0x1_0104],
  [0x1_0180, 0x1_0184],
  [0x1_0200, 0x1_0204],
  [0x1_0280, 0x1_0284],
  [0x1_0300, 0x1_0304],
  [0x1_0380, 0x1_0384],
  [0x1_0400, 0x1_0420],
  [0x1_0c00, 0x1_0c08],
  [0x1_0d00, 0x1_0d04],
  [0x1_0e00, 0x1_0e04],
];

const exists = (offset: number): boolean =>
  offset % 4 === 0 && KNOWN.some(([start, end]) => offset >= start && offset < end);

/**
 * Writes a redistributor register as KVM_DEV_ARM_VGIC_GRP_REDIST_REGS does: in 32-bit accesses, a
 * 64-bit value as its low and then its high half.
 */
export function* writeRedistributorRegister(
  vgic: VgicState,
  vcpu: number,
  offset: number,
  value: bigint,
  size: 4 | 8,
): Program<Status> {
  if (vgic.redistributors[vcpu] === undefined) return -EINVAL;
  if (vgic.vcpusRunning) return -EBUSY;
  for (let half = 0; half < size; half += 4) {
    const status = yield* writeHalf(vgic, vcpu, offset + half, (value >> BigInt(half * 8)) & 0xffff_ffffn);
    if (status !== 0) return status;
  }
  return 0;
}

function* writeHalf(vgic: VgicState, vcpu: number, offset: number, half: bigint): Program<Status> {
  if (!exists(offset)) return -ENXIO;
  const redistributor = vgic.redistributors[vcpu]!;
  const { lpisEnabled } = redistributor;
  switch (offset) {
    case GICR.CTLR:
      return yield* writeControl(vgic, redistributor, gicrCtlr.decode(half).enableLpis);
    case GICR.PROPBASER:
    case GICR.PROPBASER + 4:
      if (!lpisEnabled) vgic.propbaser = replaceHalf(vgic.propbaser, offset & 4, 4, half);
      return 0;
    case GICR.PENDBASER:
    case GICR.PENDBASER + 4:
      if (!lpisEnabled) {
        const word = replaceHalf(redistributor.pendbaser, offset & 4, 4, half);
        redistributor.pendbaser = sanitisePendbaser(word);
      }
      return 0;
    case GICR.INVLPIR:
      return lpisEnabled ? yield* reportingRun(vgic, (run) => invalidateOne(run, Number(half))) : 0;
    case GICR.INVALLR:
      return lpisEnabled ? yield* reportingRun(vgic, (run) => invalidateAll(run, vcpu)) : 0;
    default:
      return 0; // read-only, or a register of the upper halves that only virtual PEs have
  }
}

/** The kernel swallows these failures; a transactional run reports one that a retry can mend. */
function* reportingRun(vgic: VgicState, body: (run: Run) => Program<Status>): Program<Status> {
  return yield* runFlushed(vgic, function* (run) {
    const status = yield* body(run);
    return status === 0 || vgic.mode === 'kvm' ? 0 : yield* retryableFailure(run);
  });
}

function* invalidateOne(run: Run, intid: number): Program<Status> {
  const slot = intid < FIRST_LPI ? -1 : run.vgic.lpis.find(intid);
  return slot < 0 ? 0 : yield* updateConfiguration(run, slot);
}

/**
 * GICR_CTLR: enabling LPIs takes over the pending table unless PTZ says it is empty. The kernel shows
 * LPIs as enabled even if that stopped half-way; a transactional run leaves them disabled.
 */
function* writeControl(vgic: VgicState, redistributor: Redistributor, enable: boolean): Program<Status> {
  const { index } = redistributor;
  if (enable === redistributor.lpisEnabled) return 0;
  redistributor.lpisEnabled = enable;
  if (!enable) {
    flushApList(vgic.lpis, index, vgic.quirks.disablingClearsPending);
    for (const its of vgic.itses) its.cache.empty(vgic.lpis);
    return 0;
  }
  if (gicrPendbaser.decode(redistributor.pendbaser).pendingTableZero) return 0;
  const status = yield* reportingRun(vgic, (run) => syncPendingTable(run, index));
  if (status !== 0) redistributor.lpisEnabled = false;
  return status;
}

/** GICD_CTLR, GICD_TYPER, GICD_IIDR or GICD_TYPER2. */
export function distributorRegister(vgic: VgicState, offset: number): bigint {
  switch (offset) {
    case GICD.CTLR:
      return vgic.forwarding ? 0x52n : 0x50n;
    case GICD.IIDR:
      return 0x4b00_043bn | (BigInt(vgic.revision) << 12n);
    default:
      return 0n;
  }
}

/** Writes one of the distributor registers that concern LPIs; others are accepted and ignored. */
export function writeDistributorRegister(vgic: VgicState, offset: number, value: bigint): Status {
  if (offset % 4 !== 0) return -ENXIO;
  if (vgic.vcpusRunning) return -EBUSY;
  switch (offset) {
    case GICD.CTLR:
      vgic.forwarding = (value & 2n) !== 0n;
      return 0;
    case GICD.IIDR: {
      const revision = Number((value >> 12n) & 0xfn);
      const others = (value ^ distributorRegister(vgic, GICD.IIDR)) & ~0xf000n;
      if (others !== 0n || revision < 2 || revision > 3) return -EINVAL;
      vgic.revision = revision;
      return 0;
    }
    case GICD.TYPER2:
      return value === 0n ? 0 : -vgic.quirks.changedTyper2;
    default:
      return 0;
  }
}
