import { LPI_ENABLED, LPI_PENDING, type LpiSlot, type LpiStore } from './lpi-store.js';
import { gicrPendbaser } from './registers.js';
import type { Address } from './windows.js';

/** GICR_PENDBASER of a new redistributor: inner shareable, read-allocate write-back. */
const INITIAL_PENDBASER = 0x580n;

/** One vCPU's redistributor, as far as LPIs go. */
export class Redistributor {
  lpisEnabled = false;
  #pendbaser = INITIAL_PENDBASER;
  pendingTable: Address = 0;

  constructor(
    /** Position among the vCPUs. */
    readonly index: number,
    /** vcpu_id: what RDBase and GICR_TYPER.Processor_Number hold. May be sparse. */
    readonly vcpuId: number,
  ) {}

  get pendbaser(): bigint {
    return this.#pendbaser;
  }
  set pendbaser(word: bigint) {
    this.#pendbaser = word;
    this.pendingTable = Number(gicrPendbaser.decode(word).address);
  }

  clone(): Redistributor {
    const copy = new Redistributor(this.index, this.vcpuId);
    copy.lpisEnabled = this.lpisEnabled;
    copy.pendbaser = this.pendbaser;
    return copy;
  }
}

/**
 * Puts an LPI on its target's ap_list if it is pending and enabled, forwarding is on, and it is on
 * none: from then on the list holds it, whatever becomes of its entry.
 */
export function queueLpi(lpis: LpiStore, slot: LpiSlot, forwarding: boolean): void {
  const wanted = LPI_PENDING | LPI_ENABLED;
  if (!forwarding || (lpis.flags[slot]! & wanted) !== wanted) return;
  const target = lpis.target[slot]!;
  if (target < 0 || lpis.apList[slot]! >= 0) return;
  lpis.apList[slot] = target;
  lpis.hold(slot);
}

/** Takes every LPI off a vCPU's ap_list, as disabling LPIs does; newer kernels make it not pending, too. */
export function flushApList(lpis: LpiStore, vcpu: number, clearsPending: boolean): void {
  for (const slot of lpis.ordered('intid')) {
    if (lpis.apList[slot] !== vcpu) continue;
    lpis.apList[slot] = -1;
    if (clearsPending) lpis.flags[slot]! &= ~LPI_PENDING;
    lpis.release(slot);
  }
}
