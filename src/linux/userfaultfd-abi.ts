/**
 * The userfaultfd ABI as numbers, up to Linux 7.3. Checked against the kernel's own header by a test
 * that compiles it. Source: linux/userfaultfd.h.
 */

export const UFFD_API = 0xaa;

/** Open flag: faults of the kernel itself fail with EFAULT instead of being delivered. */
export const UFFD_USER_MODE_ONLY = 1;

/** `USERFAULTFD_IOC_NEW` on /dev/userfaultfd; the argument is the open flags. */
export const USERFAULTFD_IOC_NEW = 0xaa00;

/** Feature bits of the API handshake. */
export const UFFD_FEATURE = {
  PAGEFAULT_FLAG_WP: 1 << 0,
  EVENT_FORK: 1 << 1,
  EVENT_REMAP: 1 << 2,
  EVENT_REMOVE: 1 << 3,
  MISSING_HUGETLBFS: 1 << 4,
  MISSING_SHMEM: 1 << 5,
  EVENT_UNMAP: 1 << 6,
  SIGBUS: 1 << 7,
  THREAD_ID: 1 << 8,
  MINOR_HUGETLBFS: 1 << 9,
  MINOR_SHMEM: 1 << 10,
  EXACT_ADDRESS: 1 << 11,
  WP_HUGETLBFS_SHMEM: 1 << 12,
  WP_UNPOPULATED: 1 << 13,
  POISON: 1 << 14,
  WP_ASYNC: 1 << 15,
  MOVE: 1 << 16,
  RWP: 1 << 17,
  /** Only together with RWP. */
  RWP_ASYNC: 1 << 18,
} as const;

export type UffdFeature = keyof typeof UFFD_FEATURE;

/** Modes of UFFDIO_REGISTER. */
export const UFFD_REGISTER_MODE = { MISSING: 1, WP: 2, MINOR: 4, RWP: 8 } as const;

/** Requests. */
export const UFFDIO = {
  API: 0xc018aa3f,
  REGISTER: 0xc020aa00,
  UNREGISTER: 0x8010aa01,
  WAKE: 0x8010aa02,
  COPY: 0xc028aa03,
  ZEROPAGE: 0xc020aa04,
  MOVE: 0xc028aa05,
  WRITEPROTECT: 0xc018aa06,
  CONTINUE: 0xc020aa07,
  POISON: 0xc020aa08,
  RWPROTECT: 0xc018aa09,
  SET_MODE: 0x4010aa0a,
} as const;

export type UffdIoctl = keyof typeof UFFDIO;

/** Sizes in bytes of the argument structures, as the requests encode them. */
export const UFFDIO_SIZE: Readonly<Record<UffdIoctl, number>> = {
  API: 24,
  REGISTER: 32,
  UNREGISTER: 16,
  WAKE: 16,
  COPY: 40,
  ZEROPAGE: 32,
  MOVE: 40,
  WRITEPROTECT: 24,
  CONTINUE: 32,
  POISON: 32,
  RWPROTECT: 24,
  SET_MODE: 16,
};

/** Modes of UFFDIO_COPY. DONTWAKE: leave the waiters asleep until a later WAKE. */
export const UFFD_COPY_MODE = { DONTWAKE: 1, WP: 2 } as const;
export const UFFD_ZEROPAGE_MODE = { DONTWAKE: 1 } as const;
export const UFFD_CONTINUE_MODE = { DONTWAKE: 1, WP: 2 } as const;
export const UFFD_POISON_MODE = { DONTWAKE: 1 } as const;
export const UFFD_MOVE_MODE = { DONTWAKE: 1, ALLOW_SRC_HOLES: 2 } as const;
/** The other way round than everywhere else: bit 0 protects, bit 1 is DONTWAKE. */
export const UFFD_WRITEPROTECT_MODE = { WP: 1, DONTWAKE: 2 } as const;
/** As {@link UFFD_WRITEPROTECT_MODE}. Linux 7.3. */
export const UFFD_RWPROTECT_MODE = { RWP: 1, DONTWAKE: 2 } as const;

/** Events of `struct uffd_msg`. */
export const UFFD_EVENT = {
  PAGEFAULT: 0x12,
  FORK: 0x13,
  REMAP: 0x14,
  REMOVE: 0x15,
  UNMAP: 0x16,
} as const;

/** Flags of a page fault; none of WP, MINOR and RWP means a missing page. */
export const UFFD_PAGEFAULT_FLAG = { WRITE: 1, WP: 2, MINOR: 4, RWP: 8 } as const;

/** `sizeof(struct uffd_msg)`. */
export const UFFD_MSG_BYTES = 32;

/** The names of the features in a mask; bits this version does not know are left out. */
export function uffdFeatureNames(mask: bigint): UffdFeature[] {
  return (Object.keys(UFFD_FEATURE) as UffdFeature[]).filter((name) => mask & BigInt(UFFD_FEATURE[name]));
}

/**
 * The names of the ioctls in a mask as UFFDIO_API and UFFDIO_REGISTER answer it: bit n is `_UFFDIO` number n.
 */
export function uffdIoctlNames(mask: bigint): UffdIoctl[] {
  return (Object.keys(UFFDIO) as UffdIoctl[]).filter((name) => mask & (1n << BigInt(UFFDIO[name] & 0xff)));
}
