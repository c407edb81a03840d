import { Kvm } from './kvm.js';
import { GUEST_MEMFD_FLAG } from './kvm-abi.js';
import { type Mapping, mapMemory } from './mapping.js';
import { NativeBlock } from './native-block.js';
import { pageSize } from './page-size.js';
import * as raw from './raw.js';
import { Userfaultfd } from './userfaultfd.js';
import { UFFD_REGISTER_MODE } from './userfaultfd-abi.js';

/** What a guest_memfd of this kernel supports besides memslots. */
export interface GuestMemfdSupport {
  /** Names of {@link GUEST_MEMFD_FLAG} that VMs take; none where there is no guest_memfd, or an older one. */
  readonly flags: readonly string[];
  /** Whether write(2) fills its pages: so on no released kernel up to 7.3. */
  readonly write: boolean;
  /**
   * Whether a userfaultfd can register a mapping of it, for missing or minor faults: on no released kernel up
   * to 7.3.
   */
  readonly userfaultfd: boolean;
}

/** Whether write(2) fills pages of a file. Writes nothing; a guest_memfd says ESPIPE. Blocks: never. */
export function takesWrites(fd: number): boolean {
  using nothing = new NativeBlock(16);
  return raw.pwrite(fd, nothing.address, 0, 0) === 0;
}

/**
 * Tries it with a VM, a file of one page and a userfaultfd, and closes them. Blocks: never.
 * Errors: NO_DEVICE, NO_PERMISSION, KERNEL.
 */
export function guestMemfdSupport(): GuestMemfdSupport {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  const mask = vm.guestMemfdFlags;
  const flags = Object.entries(GUEST_MEMFD_FLAG).flatMap(([name, bit]) => (mask & bit ? [name] : []));
  if ((mask & GUEST_MEMFD_FLAG.MMAP) === 0) return { flags, write: false, userfaultfd: false };
  const fd = vm.createGuestMemfd(pageSize(), mask);
  const write = takesWrites(fd);
  using mapping = mapFile(fd);
  return { flags, write, userfaultfd: takesUserfaultfd(mapping) };
}

function mapFile(fd: number): Mapping {
  try {
    return mapMemory({ kind: 'file', length: pageSize(), fd });
  } catch (error) {
    raw.close(fd);
    throw error;
  }
}

function takesUserfaultfd({ address, length }: Mapping): boolean {
  using uffd = Userfaultfd.open();
  const { MISSING, MINOR } = UFFD_REGISTER_MODE;
  return [MISSING, MINOR].some((mode) => uffd.port.register(address, length, mode) === 0);
}
