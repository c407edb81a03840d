import { type Hva, fileOffset, hex, hva } from '../../api/address.js';
import { DemandPagingError } from '../../api/error.js';
import { type Region, type RegionSpec } from '../../api/layout.js';
import {
  check,
  checkFileHolds,
  ERRNO,
  hugePageSizes,
  libc,
  MADV,
  type Mapping,
  mapMemory,
  type MapOptions,
  type MemoryPlace,
  pageSize,
  raw,
  residentPages,
} from '../../linux/index.js';

/** Where one region's memory is, and what of it this attachment must give back. */
export interface RegionMemory {
  readonly start: number;
  /** The memory file, where there is one and it is known. */
  readonly fd: number | undefined;
  readonly fileOffset: number;
  /** It was mapped here: unmapped when the attachment closes. */
  readonly mapped: boolean;
  /** The descriptor was made here: closed when the attachment closes. */
  readonly ownsFile: boolean;
}

/** What a layout says of a region's place. */
export function placeOf(memory: RegionMemory): Pick<RegionSpec, 'hva' | 'file'> {
  const file = memory.fd === undefined ? undefined : { fd: memory.fd, offset: fileOffset(memory.fileOffset) };
  return { hva: hva(memory.start) as Hva, file };
}

/** Refuses what this backend cannot page, before anything is touched. Throws NOT_SUPPORTED, BAD_RANGE. */
export function checkRegion(region: Region): void {
  const { memory } = region;
  const refuse = (message: string, hint: string): never => {
    throw new DemandPagingError('NOT_SUPPORTED', `the region at ${hex(region.gpa)}: ${message}`, { hint });
  };
  if (memory === 'guest-memfd')
    refuse('userfaultfd does not take guest_memfd memory', "Use the 'guest-memfd' backend");
  if (memory === 'hugetlb') {
    const sizes = hugePageSizes();
    if (!sizes.includes(region.pageSize)) {
      refuse(
        `no huge pages of ${region.pageSize} bytes on this host`,
        `It has ${sizes.join(', ') || 'none'}`,
      );
    }
  } else if (region.pageSize !== pageSize()) {
    refuse(
      `pages of ${region.pageSize} bytes, but this host's are of ${pageSize()}`,
      'Bring several at once with faultAroundPages',
    );
  }
  if (region.file) checkFileHolds(region.file.fd, Number(region.file.offset), Number(region.length));
}

/**
 * Refuses memory whose page cache cannot be written, where contents are brought there. Throws NOT_SUPPORTED.
 */
export function checkNamed(region: Region, { fd }: RegionMemory): void {
  if (fd !== undefined) return;
  throw new DemandPagingError('NOT_SUPPORTED', `the region at ${hex(region.gpa)} has no file`, {
    hint: 'Name the memory file: contents are written into its page cache',
  });
}

/** Refuses a region of another process that does not say where it is there. Throws BAD_RANGE. */
export function checkForeign(region: Region): void {
  if (region.hva !== undefined) return;
  throw new DemandPagingError(
    'BAD_RANGE',
    `the region at ${hex(region.gpa)} has no hva: where is it in the other process?`,
  );
}

/**
 * The memory of a region: adopted where it has an address, else mapped. Mapped memory has no transparent huge
 * pages, which would blur the unit in which pages go missing, and is not inherited by children.
 * Adopted memory is taken as it is.
 * Errors: NO_HUGE_PAGES, NO_PERMISSION, KERNEL; then nothing is left behind.
 */
export function bringMemory(region: Region): RegionMemory {
  const file = region.file;
  const fd = file?.fd;
  const offset = Number(file?.offset ?? 0n);
  if (region.hva !== undefined)
    return { start: Number(region.hva), fd, fileOffset: offset, mapped: false, ownsFile: false };
  const length = Number(region.length);
  const options: MapOptions = { ...kindOf(region), length };
  if (fd === undefined) {
    const mapping = mapMemory(options);
    noHugePages(mapping, region);
    return {
      start: mapping.address,
      fd: mapping.fd,
      fileOffset: 0,
      mapped: true,
      ownsFile: mapping.fd !== undefined,
    };
  }
  const mapping = mapMemory({ ...options, kind: 'file', fd, fileOffset: offset });
  noHugePages(mapping, region);
  return { start: mapping.address, fd, fileOffset: offset, mapped: true, ownsFile: false };
}

function kindOf(region: Region): Pick<MapOptions, 'kind' | 'hugePageSize'> {
  switch (region.memory) {
    case 'shmem':
      return { kind: 'shmem' };
    case 'hugetlb':
      return { kind: 'hugetlb-shmem', hugePageSize: region.pageSize };
    default:
      return { kind: 'anonymous' };
  }
}

/** Of what fails nothing is left but a file that is the caller's. */
function noHugePages({ address, length, fd }: Mapping, region: Region): void {
  if (region.memory === 'hugetlb') return;
  const result = raw.madvise(address, length, MADV.NOHUGEPAGE);
  if (result >= 0 || result === -ERRNO.EINVAL) return; // a kernel without transparent huge pages has none to avoid
  raw.munmap(address, length);
  if (fd !== undefined && !region.file) raw.close(fd);
  check(result, 'madvise', 'cannot switch transparent huge pages off');
}

/** Unmaps what was mapped, wherever it has moved to meanwhile, and closes the files made here. */
export function giveBack(
  memory: RegionMemory,
  pieces: readonly { readonly start: number; readonly length: number }[],
): void {
  if (memory.mapped) for (const { start, length } of pieces) libc().munmap(start, length);
  if (memory.ownsFile && memory.fd !== undefined) raw.close(memory.fd);
}

/** Pages looked at in one call of mincore(2). */
const LOOK_PAGES = 65536;

/** Whether something is mapped at every address of a range. */
export function isMapped(start: number, length: number): boolean {
  const step = LOOK_PAGES * pageSize();
  try {
    for (let at = 0; at < length; at += step) residentPages(start + at, Math.min(step, length - at));
    return true;
  } catch (error) {
    if (error instanceof DemandPagingError && error.errno === ERRNO.ENOMEM) return false;
    throw error;
  }
}

/**
 * Nobody else knows of it; but a process whose memory is locked (mlockall(2)) has it filled as it is mapped.
 */
export const isOurs = ({ mapped, fd, ownsFile }: RegionMemory): boolean =>
  mapped && (fd === undefined || ownsFile);

export const fileOf = ({ fd, fileOffset }: RegionMemory): { fd: number; offset: number } | undefined =>
  fd === undefined ? undefined : { fd, offset: fileOffset };

/** Where regions lie, of memory that others can have, too. */
export function placesOf(regions: readonly Region[], memory: readonly RegionMemory[]): MemoryPlace[] {
  return regions.flatMap(({ gpa, length, memory: kind, hva: at }, i) => {
    const brought = memory[i]!;
    if (isOurs(brought)) return [];
    return {
      range: { start: gpa, length },
      memory: kind,
      address: Number(at ?? brought.start),
      file: fileOf(brought),
    };
  });
}
