import { type MemoryKind } from '../api/layout.js';
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
 * Discards pages, so that the next access meets a hole. Private memory forgets them by MADV_DONTNEED, locked
 * memory too (Linux 5.18). Of a file they are punched out, because the mapping alone forgetting them leaves
 * the page cache to serve them again; then the mapping forgets, because a hole leaves poison and protection
 * marks where they are.
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

/** As {@link discardMemory}; a thread of libuv's waits for the event to be read, and not this one. */
export async function discardMemoryLater(options: DiscardOptions): Promise<void> {
  const advising = discarding(options);
  for (let next = advising.next(); !next.done;) next = advising.next(await raw.madviseLater(...next.value));
}

/** Asks for each madvise(2) to be made, and goes by its result. */
function* discarding({ address, length, memory, file }: DiscardOptions): Generator<Advice, void, number> {
  const range = { start: BigInt(address), length: BigInt(length) };
  const must = (result: number, syscall: string): void => {
    if (result < 0) throw systemError(syscall, -result, 'the pages cannot be discarded', { range });
  };
  if (memory !== 'anonymous' && file) {
    must(raw.fallocate(file.fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, file.offset, length), 'fallocate');
  } else if (memory !== 'anonymous') {
    const removed = yield [address, length, MADV.REMOVE];
    // Private huge pages have no file to remove from, or none that may be.
    const isPrivate = removed === -ERRNO.EINVAL || removed === -ERRNO.EACCES;
    if (!(isPrivate && memory === 'hugetlb')) must(removed, 'madvise');
  }
  const forgotten = yield [address, length, MADV.DONTNEED_LOCKED];
  if (forgotten === -ERRNO.EINVAL) must(yield [address, length, MADV.DONTNEED], 'madvise');
  else must(forgotten, 'madvise');
}
