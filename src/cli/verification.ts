import { DemandPagingError, type Gpa, type GuestMemory } from '../api/index.js';
import { type ImageFile } from './image-file.js';
import { type RestoredWords } from './its-restore.js';
import { type VerifyResult } from './restore-job.js';

const CHUNK_BYTES = 1024 * 1024;

/**
 * Compares every byte of guest memory with the image, read anew, and, where restoring the GIC wrote, with
 * what the recorded kernel wrote there. Pages still missing are brought. Rejects with the image's errors.
 */
export async function verify(
  memory: GuestMemory,
  image: ImageFile,
  words: RestoredWords,
  pageSize: number,
): Promise<VerifyResult> {
  const started = performance.now();
  const tally = { wrong_bytes: 0, firstWrong: undefined as bigint | undefined, unreadablePages: 0 };
  const step = Math.max(CHUNK_BYTES, pageSize);
  for (let at = 0; at < image.length; at += step) {
    const expected = new Uint8Array(Math.min(step, image.length - at));
    image.readInto(at, expected);
    apply(words, image.base + BigInt(at), expected);
    await compare(memory, image.base + BigInt(at), expected, pageSize, tally);
  }
  return {
    ...tally,
    bytes: image.length,
    changed_bytes: words.size * 8,
    elapsed_ms: performance.now() - started,
  };
}

/** Puts the words of a stretch of memory into its bytes. */
function apply(words: RestoredWords, start: bigint, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (const [gpa, word] of words) {
    const offset = Number(gpa - start);
    if (offset >= 0 && offset + 8 <= bytes.length) view.setBigUint64(offset, word, true);
  }
}

interface Tally {
  wrong_bytes: number;
  firstWrong: bigint | undefined;
  unreadablePages: number;
}

async function compare(
  memory: GuestMemory,
  start: bigint,
  expected: Uint8Array,
  pageSize: number,
  tally: Tally,
): Promise<void> {
  let actual: Uint8Array;
  try {
    actual = await memory.read(start as Gpa, expected.length);
  } catch (error) {
    if (!(error instanceof DemandPagingError) || !UNREADABLE.has(error.code)) throw error;
    if (expected.length > pageSize) {
      for (let at = 0; at < expected.length; at += pageSize)
        await compare(memory, start + BigInt(at), expected.subarray(at, at + pageSize), pageSize, tally);
      return;
    }
    tally.unreadablePages++;
    tally.wrong_bytes += expected.length;
    tally.firstWrong ??= start;
    return;
  }
  if (Buffer.compare(actual, expected) === 0) return;
  for (let at = 0; at < expected.length; at++) {
    if (actual[at] === expected[at]) continue;
    tally.wrong_bytes++;
    tally.firstWrong ??= start + BigInt(at);
  }
}

/** What stands in the way of reading one page and says nothing about the others. */
const UNREADABLE: ReadonlySet<string> = new Set(['PAGE_POISONED', 'PAGE_FAILED']);
