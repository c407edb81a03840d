import { type VmHooksRef } from './pause.js';
import { type SlotStrategy } from './slot-thread.js';
import { type UserfaultNumbers } from './userfault-slots.js';

export interface KvmOptions {
  /** The VM's descriptor; it stays the caller's and must outlive the attachment. */
  readonly vm: number;
  /**
   * Exit handlers that can be open at once: one for each vCPU, and one for each thread that issues VM or
   * device ioctls which reach guest memory.
   */
  readonly vcpus: number;
  /**
   * Memslot numbers that nothing else uses: one for each page of the layout, and two for slot verification.
   * With fewer, pages are mapped for vCPUs in chunks, each once it is complete: an unavailable page makes its
   * chunk unavailable.
   * Default: from 16, as many of these as the kernel has.
   */
  readonly slots?: { readonly first: number; readonly count: number } | undefined;
  /**
   * How missing pages are kept from vCPUs. `vacated-slot`: any access exits (Linux 6.18). `memslot-hole`:
   * every kernel, plain loads and stores only. Default: the first of these that the host supports.
   * `userfault-bitmap`: any access exits, and no memslot is changed when a page arrives; only on a kernel
   * with KVM Userfault, which is in no release, and only with its numbers (`userfault`).
   */
  readonly strategy?: SlotStrategy | 'auto' | undefined;
  /** For `userfault-bitmap`. */
  readonly userfault?: UserfaultNumbers | undefined;
  /** How the VMM pauses its vCPUs, if they do not use our exit handlers. Default: by the exit handlers. */
  readonly hooks?: VmHooksRef | undefined;
  /**
   * Slot verification: after slots were vacated, a probe vCPU, which stays in the VM, tests that a guest
   * access exits. `vcpuId` (default: the highest that the VM takes) and `gpa` (default: 2 MiB beyond 16 GiB
   * and every region) say where; the next free ones are used. `false`: no verification; then nothing detects
   * that another process holds the file.
   */
  readonly verifySlots?: false | { readonly vcpuId?: number; readonly gpa?: number } | undefined;
  /**
   * Disables the x86 quirk by which deleting any memslot zaps all of the guest's mappings. Default true; it
   * cannot be enabled again.
   */
  readonly zapOnlyTheSlot?: boolean | undefined;
  /**
   * Logs the pages that vCPUs write, for {@link KvmBackend.writtenPages}. Default false. guest_memfd memory
   * cannot be logged. Writes of other threads, including the VMM's and an exit handler's for a memslot hole,
   * are not logged.
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

/** Fills in defaults. Throws RangeError with the name of the invalid option. */
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
