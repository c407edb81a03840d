import { isMapped } from './collection.js';
import { EBUSY, EINVAL, type Status } from './errno.js';
import type { Its } from './its.js';
import { LPI_PENDING, type LpiSlot } from './lpi-store.js';
import { queueLpi } from './redistributor.js';
import type { VgicState } from './vgic-state.js';

/** KVM_MSI_VALID_DEVID. */
export const MSI_VALID_DEVICE = 1;
const ITS_FRAME_BYTES = 0x2_0000n;
const GITS_TRANSLATER = 0x1_0040n;

/** The event is not mapped; the guest blocked it. */
const UNMAPPED = 1;

function makePending({ lpis, forwarding }: VgicState, slot: LpiSlot): void {
  lpis.flags[slot]! |= LPI_PENDING;
  queueLpi(lpis, slot, forwarding);
}

/** Makes an event's LPI pending and caches the translation. 0, 1 if it is not mapped, or minus an errno. */
export function triggerMsi(vgic: VgicState, its: Its, deviceId: number, event: number): Status {
  if (!its.enabled) return -EBUSY;
  const device = its.device(deviceId);
  const row = device?.find(event) ?? -1;
  if (device === undefined || row < 0) return UNMAPPED;
  const collection = its.collectionOf(device, row);
  if (!isMapped(collection)) return UNMAPPED;
  if (!vgic.redistributors[vgic.vcpuIndex(collection.target)]!.lpisEnabled) return -EBUSY;
  const slot = device.lpi(row);
  its.cache.add(its.index, deviceId, event, slot, vgic.lpis);
  makePending(vgic, slot);
  return 0;
}

/** What KVM_SIGNAL_MSI takes. Any address in an ITS's frame is its doorbell. */
export interface Msi {
  readonly address: bigint;
  readonly flags: number;
  readonly device: number;
  readonly event: number;
}

/** A cache of the VM knows an ITS by the address of one register, not by its whole frame. */
const cacheAnswers = ({ quirks }: VgicState, { base }: Its, address: bigint): boolean =>
  quirks.translationCache === 'its' || address === base! + GITS_TRANSLATER;

/**
 * KVM_SIGNAL_MSI: 1 delivered, 0 blocked by the guest, minus an errno otherwise. A cached translation
 * is used without looking at anything else, even if its vCPU has since disabled LPIs.
 */
export function signalMsi(vgic: VgicState, { address, flags, device, event }: Msi): number {
  if ((flags & ~MSI_VALID_DEVICE) !== 0) return -EINVAL;
  const its = vgic.itses.find(
    ({ base }) => base !== undefined && address >= base && address < base + ITS_FRAME_BYTES,
  );
  const cached =
    its !== undefined && cacheAnswers(vgic, its, address)
      ? its.cache.get(its.index, device, event)
      : undefined;
  if (cached !== undefined) {
    makePending(vgic, cached);
    return 1;
  }
  if (flags !== MSI_VALID_DEVICE || its === undefined) return -EINVAL;
  const status = triggerMsi(vgic, its, device, event);
  return status === 0 ? 1 : status === UNMAPPED ? 0 : status;
}
