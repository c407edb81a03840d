import { Its } from './its.js';
import { KERNELS, type KernelQuirks } from './kernel-quirks.js';
import { LpiStore } from './lpi-store.js';
import { Redistributor } from './redistributor.js';
import { gicrPropbaser } from './registers.js';
import { sanitisePropbaser } from './register-sanitising.js';
import { TranslationCache } from './translation-cache.js';
import type { Address, WindowLimits } from './windows.js';
import { checkLimits, type WorkLimits } from './work.js';

/**
 * How an operation that fails behaves. `kvm` does what the kernel does, losses included, for replay
 * and comparison. `transactional` (a word of ours) fails without consuming a pending bit, without
 * half-built state and without losing commands, so that the caller can supply the page and retry.
 */
export type Mode = 'transactional' | 'kvm';

export interface VgicOptions extends WindowLimits, WorkLimits {
  /** vcpu_ids in order of creation; their positions are the vCPU indexes used everywhere else. */
  readonly vcpuIds: readonly number[];
  /** Base addresses of the ITSes; undefined for one that has none yet. Default: one without. */
  readonly itsBases?: readonly (bigint | undefined)[];
  /** Default `transactional`. */
  readonly mode?: Mode;
  /** Default: the reference kernel, {@link KERNELS}['7.3']. */
  readonly quirks?: KernelQuirks;
}

/** GICR_PROPBASER once an ITS exists. */
const INITIAL_PROPBASER = 0x580n;
const INITIAL_REVISION = 3;

/** All state of a virtual GIC that has to do with LPIs. No guest memory. */
export class VgicState {
  readonly mode: Mode;
  readonly quirks: KernelQuirks;
  readonly limits: WindowLimits & WorkLimits;
  lpis = new LpiStore();
  redistributors: Redistributor[];
  itses: Its[];
  /** GICD_CTLR.EnableGrp1: only then do LPIs enter ap_lists. */
  forwarding = false;
  /** GICD_IIDR.Revision; from 3 on GICR_CTLR shows CES and IR. */
  revision = INITIAL_REVISION;
  /** Set by the VMM while a vCPU runs: attributes are then refused with EBUSY. */
  vcpusRunning = false;
  #propbaser = INITIAL_PROPBASER;
  configurationTable: Address = 0;
  /** Exclusive bound that MAPTI puts on INTIDs. */
  lpiLimit = 0;
  readonly #byVcpuId = new Map<number, number>();

  constructor(readonly options: VgicOptions) {
    this.mode = options.mode ?? 'transactional';
    this.quirks = options.quirks ?? KERNELS['7.3'];
    this.limits = options;
    checkLimits(options);
    this.redistributors = options.vcpuIds.map((id, index) => new Redistributor(index, id));
    for (const { vcpuId, index } of this.redistributors) {
      if (!Number.isInteger(vcpuId) || vcpuId < 0 || vcpuId >= 0xffff_ffff || this.#byVcpuId.has(vcpuId)) {
        throw new RangeError(`vcpu_id ${vcpuId} is not a distinct 32-bit id`);
      }
      this.#byVcpuId.set(vcpuId, index);
    }
    const cacheOfIts = this.#caches();
    this.itses = (options.itsBases ?? [undefined]).map((base, at) => new Its(at, base, cacheOfIts()));
    this.propbaser = INITIAL_PROPBASER;
  }

  get propbaser(): bigint {
    return this.#propbaser;
  }
  set propbaser(word: bigint) {
    this.#propbaser = sanitisePropbaser(word);
    const { address, idBits } = gicrPropbaser.decode(this.#propbaser);
    this.configurationTable = Number(address);
    this.lpiLimit = 2 ** Math.min(idBits, 16);
  }

  /** Index of the vCPU that an RDbase names, or -1. */
  vcpuIndex(rdbase: number): number {
    if (this.quirks.rdbase === 'index') return rdbase < this.redistributors.length ? rdbase : -1;
    return this.#byVcpuId.get(rdbase) ?? -1;
  }

  /** Inverse of {@link vcpuIndex}. */
  rdbase(vcpu: number): number {
    return this.quirks.rdbase === 'index' ? vcpu : this.redistributors[vcpu]!.vcpuId;
  }

  clone(mode: Mode = this.mode, limits: WorkLimits = {}): VgicState {
    const copy = new VgicState({ ...this.options, ...limits, mode });
    copy.lpis = this.lpis.clone();
    copy.redistributors = this.redistributors.map((redistributor) => redistributor.clone());
    const shared = this.quirks.translationCache === 'vm' ? this.itses[0]?.cache.clone() : undefined;
    copy.itses = this.itses.map((its) => its.clone(shared ?? its.cache.clone()));
    copy.forwarding = this.forwarding;
    copy.revision = this.revision;
    copy.propbaser = this.propbaser;
    return copy;
  }

  /** Gives the cache of each ITS, which may be that of all. */
  #caches(): () => TranslationCache {
    if (this.quirks.translationCache === 'its') return () => TranslationCache.ofIts();
    const ofVm = TranslationCache.ofVm(this.redistributors.length);
    return () => ofVm;
  }
}
