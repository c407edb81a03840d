import { type PageRange } from '../api/address.js';
import { type MemoryKind, type Region } from '../api/layout.js';
import { ERRNO, systemError } from './failure.js';
import { FALLOC, MADV } from './mman.js';
import * as raw from './raw.js';

export interface DiscardOptions {
  /** Where it is mapped in this process; page-aligned, as `length` is. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  readonly memory: MemoryKind;
  /** The file, where it is known, and where in it the memory begins. */
  readonly file?: { readonly fd: number; readonly offset: number } | undefined;
}

type Advice = Parameters<typeof raw.madvise>;

/**
 * Discards pages, so that the next access finds them missing. Private memory is discarded by MADV_DONTNEED,
 * also when it is locked (Linux 5.18). In a file a hole is punched, because after MADV_DONTNEED the page
 * cache would still serve the pages; then the page table entries are zapped, because punching a hole leaves
 * poison and protection markers in them.
 *
 * Blocks: where the memory is registered with a userfaultfd that has EVENT_REMOVE, until the event was read;
 * see {@link discardMemoryLater}. Errors: KERNEL with errno (EINVAL: shared memory that is locked, of no
 * known file).
 * Source: madvise(2), fallocate(2).
 */
export function discardMemory(options: DiscardOptions): void {
  const advising = discarding(options);
  for (let next = advising.next(); !next.done;) next = advising.next(raw.madvise(...next.value));
}

/** As {@link discardMemory}, for pages of a region that begins at `address`, and at `file.offset` in its file. */
export function discardPagesOf(
  region: Region,
  { address, file }: Pick<DiscardOptions, 'address' | 'file'>,
  { first, count }: PageRange,
): void {
  const skipped = (first - region.firstPage) * region.pageSize;
  discardMemory({
    address: address + skipped,
    length: count * region.pageSize,
    memory: region.memory,
    file: file && { fd: file.fd, offset: file.offset + skipped },
  });
}

/** As {@link discardMemory}, but a thread of libuv's pool waits until the event is read, not this thread. */
export async function discardMemoryLater(options: DiscardOptions): Promise<void> {
  const advising = discarding(options);
  for (let next = advising.next(); !next.done;) next = advising.next(await raw.madviseLater(...next.value));
}

/** Yields each madvise(2) call and continues with its result. */
function* discarding({ address, length, memory, file }: DiscardOptions): Generator<Advice, void, number> {
  const range = { start: BigInt(address), length: BigInt(length) };
  const must = (result: number, syscall: string): void => {
    if (result < 0) throw systemError(syscall, -result, 'the pages cannot be discarded', { range });
  };
  if (memory !== 'anonymous' && file) {
    must(raw.fallocate(file.fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, file.offset, length), 'fallocate');
  } else if (memory !== 'anonymous') {
    const removed = yield [address, length, MADV.REMOVE];
    // Private huge pages have no file to punch, or one that must not be changed.
    const isPrivate = removed === -ERRNO.EINVAL || removed === -ERRNO.EACCES;
    if (!(isPrivate && memory === 'hugetlb')) must(removed, 'madvise');
  }
  const forgotten = yield [address, length, MADV.DONTNEED_LOCKED];
  if (forgotten === -ERRNO.EINVAL) must(yield [address, length, MADV.DONTNEED], 'madvise');
  else must(forgotten, 'madvise');
}
