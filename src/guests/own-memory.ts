import { type MemoryLayout } from '../api/layout.js';
import { type KvmVcpu, type KvmVm } from '../linux/index.js';
import { Arm64Space } from './arm64-space.js';
import { GuestSpace } from './guest-space.js';

/**
 * A guest's own memory, and how its machine and vCPUs are set up around it: what is particular to an
 * architecture.
 */
export interface OwnMemory {
  /** Guest-physical place and size. */
  readonly base: number;
  readonly length: number;
  /** Writes code and page tables. */
  write(memory: Uint8Array): void;
  /** What a machine needs before it has vCPUs. */
  prepare(vm: KvmVm): void;
  /** Makes a new vCPU ready for its first access. */
  start(vcpu: KvmVcpu, vm: KvmVm): void;
}

/** That of this host's architecture. Throws RangeError for a layout beyond 256 GiB. */
export const ownMemory = (layout: MemoryLayout, vcpus: number): OwnMemory =>
  process.arch === 'arm64' ? new Arm64Space(layout, vcpus) : new GuestSpace(layout, vcpus);
