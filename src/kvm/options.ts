import { type VmHooksRef } from './pause.js';
import { type SlotStrategy } from './slot-thread.js';
import { type UserfaultNumbers } from './userfault-slots.js';

export interface KvmOptions {
  /** The VM's descriptor; it stays the VMM's and must outlive the attachment. */
  readonly vm: number;
  /**
   * Gates that can be open at once: one for each vCPU, and one for each thread that issues VM or device ioctls
   * which reach guest memory.
   */
  readonly vcpus: number;
  /**
   * Memslot numbers that nothing else uses: one for each page of the layout, and two for the canary. With fewer,
   * pages are shown to vCPUs in chunks, each when it is complete: a page that cannot be had takes its chunk along.
   * Default: from 16, as many of these as the kernel has.
   */
  readonly slots?: { readonly first: number; readonly count: number } | undefined;
  /**
   * How missing pages are kept from vCPUs. `vacated-slot`: any access exits (Linux 6.18). `memslot-hole`: every
   * kernel, plain loads and stores only. Default: what the host has, in this order. `userfault-bitmap`: any access
   * exits and no slot is changed for a page that comes; only on a kernel with KVM Userfault, which is in no release,
   * and only with its numbers (`userfault`).
   */
  readonly strategy?: SlotStrategy | 'auto' | undefined;
  /** For `userfault-bitmap`. */
  readonly userfault?: UserfaultNumbers | undefined;
  /** The VMM's own way to stop its vCPUs, where they do not pass through gates. Default: the gates'. */
  readonly hooks?: VmHooksRef | undefined;
  /**
   * Proof that vacated slots are vacated: an access by a vCPU of our own, which stays in the VM. `vcpuId`
   * (default: the highest the VM takes) and `gpa` (default: 2 MiB beyond 16 GiB and every region, or
   * the next that are free) are its places. `false`: trust; then nothing proves that no other process holds the file.
   */
  readonly canary?: false | { readonly vcpuId?: number; readonly gpa?: number } | undefined;
  /**
   * Switches off the x86 quirk by which deleting any slot makes the whole guest fault again. Default true;
   * it cannot be switched on again.
   */
  readonly zapOnlyTheSlot?: boolean | undefined;
  /**
   * Logs the pages that vCPUs write, for {@link KvmBackend.writtenPages}. Default false. guest_memfd memory
   * cannot be logged. What others write, the VMM and the gate of a memslot hole included, is not in it.
   */
  readonly logWrites?: boolean | undefined;
  /** Staging memory of the port, in bytes; at least a page. Default 4 MiB. */
  readonly staging_bytes?: number | undefined;
}

export interface KvmChoice extends KvmOptions {
  readonly strategy: SlotStrategy | 'auto';
  readonly zapOnlyTheSlot: boolean;
  readonly staging_bytes: number;
}

/** Fills in defaults. Throws RangeError naming the option that cannot be. */
export function completeOptions(given: KvmOptions): KvmChoice {
  const whole = (name: string, value: number, least: number): void => {
    if (!Number.isInteger(value) || value < least)
      throw new RangeError(`${name} is ${value}; it takes a whole number from ${least}`);
  };
  whole('vm', given.vm, 0);
  whole('vcpus', given.vcpus, 1);
  if (given.slots) {
    whole('slots.first', given.slots.first, 0);
    whole('slots.count', given.slots.count, 1);
  }
  const strategy = given.strategy ?? 'auto';
  if (!['auto', 'vacated-slot', 'memslot-hole', 'userfault-bitmap'].includes(strategy))
    throw new RangeError(
      `strategy is '${strategy}'; it takes auto, vacated-slot, memslot-hole, userfault-bitmap`,
    );
  if (strategy === 'userfault-bitmap') {
    const { userfault } = given;
    if (!userfault) throw new TypeError("strategy 'userfault-bitmap' needs userfault: the kernel's numbers");
    whole('userfault.capability', userfault.capability, 1);
    if (given.logWrites) throw new RangeError('logWrites is not for userfault-bitmap');
  }
  const staging_bytes = given.staging_bytes ?? 0x40_0000;
  whole('staging_bytes', staging_bytes, 4096);
  return { ...given, strategy, staging_bytes, zapOnlyTheSlot: given.zapOnlyTheSlot ?? true };
}
