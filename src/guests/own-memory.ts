import { type MemoryLayout } from '../api/layout.js';
import { type KvmVcpu, type KvmVm } from '../linux/index.js';
import { Arm64Space } from './arm64-space.js';
import { GuestSpace } from './guest-space.js';

/**
 * A guest's own memory and the setup of its machine and vCPUs: the part that depends on the architecture.
 */
export interface OwnMemory {
  /** Guest-physical place and size. */
  readonly base: number;
  readonly length: number;
  /** Writes code and page tables. */
  write(memory: Uint8Array): void;
  /** Prepares a machine before it has vCPUs. */
  prepare(vm: KvmVm): void;
  /** Prepares a new vCPU for its first access. */
  start(vcpu: KvmVcpu, vm: KvmVm): void;
}

/** That of this host's architecture. Throws RangeError for a layout beyond 256 GiB. */
export const ownMemory = (layout: MemoryLayout, vcpus: number): OwnMemory =>
  process.arch === 'arm64' ? new Arm64Space(layout, vcpus) : new GuestSpace(layout, vcpus);
