import { fileOffset, hex, hva } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { type Region, type RegionSpec } from '../api/layout.js';
import {
  check,
  checkFileHolds,
  defaultHugePageSize,
  duplicate,
  GUEST_MEMFD_SHARED,
  type KvmVm,
  MADV,
  MAP,
  mapMemory,
  PROT,
  raw,
  TRANSPARENT_HUGE_BYTES,
} from '../linux/index.js';
import { mapAligned } from './aligned-mapping.js';
import { type SlotRegion } from './slot-region.js';
import { type DiscardMethod } from './slot-thread.js';

/** Which accessors besides vCPUs are stopped at missing pages, and how. */
export type Mediation =
  /** None. */
  | 'none'
  /** All that use the VMM's mapping, by userfaultfd. */
  | 'userfaultfd'
  /** The same, for memory in a guest_memfd. */
  | 'guest-memfd';

/** The memory of one region, with its resources. */
export interface PagedRegion {
  readonly slot: SlotRegion;
  readonly drop: DiscardMethod;
  /** The address at which a guest_memfd is populated. */
  readonly alias: number | undefined;
  readonly hugeUnit: number | undefined;
  /** Private memory that was mapped here: its discarded pages read as zeros. */
  readonly zeroFilled: boolean;
  readonly place: Pick<RegionSpec, 'hva' | 'file'>;
  giveBack(): void;
}

function refuse(region: Region, message: string, hint: string): never {
  throw new DemandPagingError('NOT_SUPPORTED', `the region at ${hex(region.gpa)}: ${message}`, { hint });
}

/** Refuses a region that cannot be paged so, before anything is changed. Throws NOT_SUPPORTED, BAD_RANGE. */
export function checkRegion(region: Region, mediation: Mediation): void {
  const isFile = region.memory === 'guest-memfd';
  if (isFile !== (mediation === 'guest-memfd')) {
    refuse(
      region,
      `${region.memory} memory`,
      isFile ? "Use the 'guest-memfd' backend" : "Use the 'kvm-exit' or 'composite' backend",
    );
  }
  if (region.memory === 'hugetlb') checkHugePages(region);
  if (region.file) checkFileHolds(region.file.fd, Number(region.file.offset), Number(region.length));
}

function checkHugePages(region: Region): void {
  const huge = defaultHugePageSize();
  if (huge !== undefined && region.pageSize >= huge) return;
  refuse(
    region,
    `pages of ${region.pageSize} bytes`,
    huge ? `Huge pages of this host are of ${huge} bytes` : 'This kernel has no huge pages',
  );
}

/** Maps or adopts a region's memory. Errors: NO_HUGE_PAGES, KERNEL; then nothing is leaked. */
export function bringRegion(region: Region, mediation: Mediation, vm: KvmVm, chunk: number): PagedRegion {
  const undo: (() => void)[] = [];
  try {
    const brought =
      mediation === 'guest-memfd' ? guestMemfdRegion(region, vm, undo) : plainRegion(region, mediation, undo);
    const { firstPage: page, pageCount: count, pageSize } = region;
    return {
      ...brought,
      slot: { page, count, pageSize, chunk, gpa: Number(region.gpa), ...brought.slot },
      giveBack: () => undo.reverse().forEach((step) => step()),
    };
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw error;
  }
}

/** The parts of a paged region that depend on the kind of memory. */
type Brought = Omit<PagedRegion, 'slot' | 'giveBack'> & {
  readonly slot: Pick<SlotRegion, 'address' | 'whileMissing' | 'guestMemfd' | 'guestMemfdOffset'>;
};

/** `undo`: receives the steps that release what was mapped. */
function plainRegion(region: Region, mediation: Mediation, undo: (() => void)[]): Brought {
  const length = Number(region.length);
  const own = region.hva === undefined;
  let address = Number(region.hva ?? 0n);
  let file = region.file && { fd: region.file.fd, offset: Number(region.file.offset) };
  if (own && file) {
    // The descriptor stays the VMM's, so the mapping has its own.
    const fd = duplicate(file.fd);
    undo.push(() => void raw.close(fd));
    const mapping = mapAligned({ kind: 'file', length, fd, fileOffset: file.offset }, region.pageSize);
    undo.splice(-1, 1, () => mapping.dispose()); // closes fd, too
    address = mapping.address;
  } else if (own) {
    const kind = (
      { anonymous: 'anonymous', shmem: 'shmem', hugetlb: 'hugetlb-shmem', 'guest-memfd': 'shmem' } as const
    )[region.memory];
    const mapping = mapAligned({ kind, length }, region.pageSize);
    // No accessor sees a page here before it is complete, so the kernel may allocate a huge page for it;
    // behind a userfaultfd the huge page is moved in.
    const inOnePiece = mediation === 'none' || region.memory === 'anonymous';
    if (inOnePiece && region.pageSize >= TRANSPARENT_HUGE_BYTES)
      raw.madvise(mapping.address, length, MADV.HUGEPAGE);
    undo.push(() => mapping.dispose());
    address = mapping.address;
    file = mapping.fd === undefined ? undefined : { fd: mapping.fd, offset: 0 };
  }
  // While pages are missing an access of KVM itself fails, instead of reading zeros.
  let whileMissing = address;
  if (mediation === 'none') {
    const reserved = mapMemory({ kind: 'reserved', length });
    undo.push(() => reserved.dispose());
    whileMissing = reserved.address;
  }
  return {
    slot: { address, whileMissing, guestMemfd: -1, guestMemfdOffset: 0 },
    drop: file
      ? { kind: 'file', fd: file.fd, fileOffset: file.offset }
      : { kind: 'mapped', memory: region.memory },
    alias: undefined,
    hugeUnit: region.memory === 'hugetlb' ? defaultHugePageSize() : undefined,
    zeroFilled: own && file === undefined && region.memory === 'anonymous',
    place: { hva: hva(address), file: file && { fd: file.fd, offset: fileOffset(file.offset) } },
  };
}

function guestMemfdRegion(region: Region, vm: KvmVm, undo: (() => void)[]): Brought {
  const length = Number(region.length);
  const given = region.file;
  const fd = given?.fd ?? vm.createGuestMemfd(length, GUEST_MEMFD_SHARED);
  if (!given) undo.push(() => void raw.close(fd));
  const offset = Number(given?.offset ?? 0n);
  const alias = check(
    raw.mmap(0, length, PROT.READ | PROT.WRITE, MAP.SHARED, fd, offset),
    'mmap',
    'cannot map the guest_memfd',
  );
  undo.push(() => void raw.munmap(alias, length));
  raw.madvise(alias, length, MADV.DONTFORK);
  const reservation =
    region.hva === undefined ? mapAligned({ kind: 'anonymous', length }, region.pageSize) : undefined;
  const address = reservation?.address ?? Number(region.hva);
  // By address, not by its handle: by then files are mapped over parts of it.
  if (reservation) undo.push(() => void raw.munmap(address, length));
  return {
    slot: { address, whileMissing: address, guestMemfd: fd, guestMemfdOffset: offset },
    drop: { kind: 'guest-memfd', uffd: -1 },
    alias,
    hugeUnit: undefined,
    zeroFilled: false,
    place: { hva: hva(address), file: { fd, offset: fileOffset(offset) } },
  };
}
