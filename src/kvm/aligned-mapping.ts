import { DemandPagingError } from '../api/error.js';
import {
  check,
  ERRNO,
  type MapOptions,
  type Mapping,
  mapMemory,
  MAP,
  pageSize,
  PROT,
  raw,
} from '../linux/index.js';

/** Attempts, when another thread has mapped memory at the chosen address meanwhile. */
const TRIES = 16;

/**
 * As {@link mapMemory}, at a multiple of `alignment`, which a region's pages need where they are larger
 * than the kernel's. Blocks: never. Errors: as mapMemory.
 */
export function mapAligned(options: MapOptions, alignment: number): Mapping {
  if (alignment <= pageSize()) return mapMemory(options);
  for (let attempt = 1; ; attempt++) {
    // A free address is found by mapping more than needed and unmapping it again.
    const room = options.length + alignment;
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    const found = check(
      raw.mmap(0, room, PROT.NONE, flags, -1, 0),
      'mmap',
      `cannot find ${room} bytes of addresses`,
    );
    raw.munmap(found, room);
    try {
      return mapMemory({ ...options, address: Math.ceil(found / alignment) * alignment });
    } catch (error) {
      const taken = error instanceof DemandPagingError && error.errno === ERRNO.EEXIST;
      if (!taken || attempt === TRIES) throw error;
    }
  }
}
