import { MAP, PROT, raw } from '../../../src/linux/index.js';
import { PAGE } from '../userfaultfd/scene.js';

const FIXED = 0x10;
const GROWSDOWN = 0x100;
/** Fewer pages than the kernel keeps free below memory that grows: there it maps nothing else. */
const GAP_BYTES = 64 * PAGE;
/** Inaccessible, so that the gap may be shorter than the kernel asks for. */
const GUARD_BYTES = 512 * PAGE;

/** Memory of this process that grows downwards when it is touched there, as a stack does. */
export function growingMemory(pages: number): Disposable & { readonly address: number } {
  const flags = MAP.PRIVATE | MAP.ANONYMOUS;
  const below = GUARD_BYTES + GAP_BYTES;
  const start = raw.mmap(0, below + pages * PAGE, PROT.NONE, flags, -1, 0);
  const address = start + below;
  const protection = PROT.READ | PROT.WRITE;
  const mapped = raw.mmap(address, pages * PAGE, protection, flags | FIXED | GROWSDOWN, -1, 0);
  if (start < 0 || mapped !== address) throw new Error('no memory that grows can be mapped');
  raw.munmap(address - GAP_BYTES, GAP_BYTES);
  return { address, [Symbol.dispose]: () => void raw.munmap(start, below + pages * PAGE) };
}
