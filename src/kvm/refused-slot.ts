import { hex } from '../api/address.js';
import { type DemandPagingError } from '../api/error.js';
import { ERRNO, type KvmSlot, type KvmVm, pageSize, systemError } from '../linux/index.js';

type RefusingVm = Pick<KvmVm, 'trySetSlot'>;

/**
 * The error for a memslot that KVM refused, with what of the VM conflicts with it. Codes: BAD_RANGE, KERNEL.
 */
export function refusedSlot(vm: RefusingVm, slot: KvmSlot, errno: number): DemandPagingError {
  const [conflict, hint] = conflictOf(vm, slot, errno) ?? [];
  const where =
    slot.length === 0 ? 'when it was deleted' : `at ${hex(slot.gpa)}..${hex(slot.gpa + slot.length)}`;
  return systemError(
    'ioctl KVM_SET_USER_MEMORY_REGION',
    errno,
    `KVM refused memslot ${slot.slot} ${where}${conflict === undefined ? '' : `: ${conflict}`}`,
    {
      codes: conflict === undefined ? {} : { [errno]: 'BAD_RANGE' },
      range: { start: BigInt(slot.gpa), length: BigInt(slot.length) },
      hint,
    },
  );
}

function conflictOf(vm: RefusingVm, slot: KvmSlot, errno: number): readonly [string, string] | undefined {
  if (errno === ERRNO.EEXIST)
    return [
      'another memslot of the VM overlaps it',
      "Leave the paged regions' guest-physical range to this backend",
    ];
  if (errno !== ERRNO.EINVAL || slot.length === 0) return undefined;
  return isNumberTaken(vm, slot)
    ? ['the VM has a memslot of that number', 'Set the option slots to numbers that nothing else uses']
    : [
        'it ends beyond the guest-physical address space of this VM',
        'See `address sizes` in /proc/cpuinfo; on arm64 the IPA size that the VM was created with',
      ];
}

/**
 * Whether the VM has a memslot of this number, which KVM does not report. A slot that exists keeps its size
 * and its userspace_addr, so KVM refuses another page under its number (EINVAL). A slot that does not exist
 * is created, and deleted again, or overlaps another (EEXIST). Precondition: the vCPUs are paused.
 */
export function isNumberTaken(
  vm: RefusingVm,
  { slot, userspace }: Pick<KvmSlot, 'slot' | 'userspace'>,
): boolean {
  const unit = pageSize();
  const result = vm.trySetSlot({ slot, gpa: 0, length: unit, userspace: userspace - (userspace % unit) });
  if (result === 0) vm.trySetSlot({ slot, gpa: 0, length: 0, userspace: 0 });
  return result === -ERRNO.EINVAL;
}
