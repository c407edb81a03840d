import { type PageIndex } from '../api/address.js';
import { type AccessSite } from '../api/access.js';
import { type RegionSpec } from '../api/layout.js';
import { type Walk, type WalkReport } from '../accessors/index.js';
import { type VcpuExitHandlerToken } from '../kvm/index.js';
import { type KvmVcpuToken } from '../linux/index.js';

/** Sites that a vCPU or its KVM can be made to access memory from. */
export type GuestSite = Extract<
  AccessSite,
  'vcpu-load' | 'vcpu-store' | 'vcpu-atomic' | 'vcpu-fetch' | 'vcpu-walk' | 'kernel-copy'
>;

/** A vCPU, as its thread receives it. */
export interface VcpuPlace {
  /** Stays open longer than the access takes. */
  readonly vcpu: KvmVcpuToken;
  /** Which of the guest's vCPUs. */
  readonly index: number;
  readonly vcpus: number;
  /** Every region of the guest; its own memory is in this process at `own`. */
  readonly regions: readonly RegionSpec[];
  readonly own: number;
  /** Absent where vCPUs are stopped inside KVM_RUN. */
  readonly exitHandlerToken: VcpuExitHandlerToken | undefined;
}

export interface GuestAccess {
  readonly page: PageIndex;
  readonly offset: number;
  readonly length: number;
  /** The bytes to write; absent for a read. */
  readonly bytes: Uint8Array | undefined;
  /** How KVM itself is made to read: string I/O, which it carries out for the guest, or KVM_TRANSLATE. */
  readonly kernel: 'string-io' | 'translate';
  /**
   * Whether a walk through a missing page is expected to inject an abort into the guest: then nothing else is
   * checked.
   */
  readonly injects: boolean;
}

export type GuestResult =
  | { readonly ok: true; readonly bytes: Uint8Array }
  | { readonly ok: false; readonly errno: number; readonly injected: boolean; readonly why: string };

/** Commands to a vCPU's thread. */
export type VcpuCommand =
  | {
      readonly kind: 'access';
      readonly id: number;
      readonly site: GuestSite;
      readonly vcpu: VcpuPlace;
      readonly access: GuestAccess;
    }
  | {
      readonly kind: 'walk';
      readonly id: number;
      readonly site: GuestSite;
      readonly vcpu: VcpuPlace;
      readonly walk: Walk;
    }
  | { readonly kind: 'stop' };

/** Its replies. */
export type VcpuEvent =
  | { readonly kind: 'ready'; readonly thread: number }
  | { readonly kind: 'accessed'; readonly id: number; readonly result: GuestResult }
  | { readonly kind: 'walked'; readonly id: number; readonly report: WalkReport }
  | { readonly kind: 'failed'; readonly id: number; readonly message: string };

/** The thread's `workerData`. */
export interface VcpuThreadData {
  /** One word: not 0 to end a walk. */
  readonly interrupted: SharedArrayBuffer;
}
