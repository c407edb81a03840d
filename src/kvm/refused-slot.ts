import { hex } from '../api/address.js';
import { type DemandPagingError } from '../api/error.js';
import { ERRNO, type KvmSlot, type KvmVm, pageSize, systemError } from '../linux/index.js';

type RefusingVm = Pick<KvmVm, 'trySetSlot'>;

/** What KVM answered to a slot that it refused, and what of the VM is in the slot's way. Codes: BAD_RANGE, KERNEL. */
export function refusedSlot(vm: RefusingVm, slot: KvmSlot, errno: number): DemandPagingError {
  const [conflict, hint] = conflictOf(vm, slot, errno) ?? [];
  const where =
    slot.length === 0 ? 'where it was to be deleted' : `at ${hex(slot.gpa)}..${hex(slot.gpa + slot.length)}`;
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
    ? ['the VM has a memslot of that number already', 'Give the backend `slots` that nothing else uses']
    : [
        'it ends beyond the guest-physical addresses that this VM can have',
        'See the `address sizes` of /proc/cpuinfo; on arm64 the IPA size that the VM was made with',
      ];
}

/**
 * Whether the VM has a slot of this number, which KVM does not tell: one that exists keeps its size and its
 * userspace_addr, so that another page under its number is refused (EINVAL). One that does not exist comes to be, and is
 * deleted again, or overlaps another (EEXIST). Precondition: the vCPUs stand.
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
