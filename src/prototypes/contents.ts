import { type ModelKernel, type PageRequest } from '../backends/memory/index.js';
import { ERRNO } from '../backends/memory/errno.js';

/** UFFDIO_COPY and its kin on the VMM's mapping: at once or not at all. 0 or a positive errno. */
export function byUserfaultfd({ verb, page, bytes, protect }: PageRequest, { memory }: ModelKernel): number {
  switch (verb) {
    case 'copy':
      return memory.install(page, bytes!, protect);
    case 'zeropage':
      return memory.zero(page);
    case 'move':
      return memory.move(page, bytes!);
    case 'continue':
      return memory.continue(page, protect);
    case 'poison':
      return memory.poison(page);
    case 'writeprotect':
    case 'rwprotect':
      return memory.protect(page, verb, protect);
    case 'wake':
    case 'fail':
      return 0;
  }
}

/**
 * An ordinary write through the VMM's mapping, which nothing guards: the page comes into being with the first
 * store and others run between the stores. 0 or a positive errno.
 */
export function throughMapping({ page, bytes }: PageRequest, kernel: ModelKernel): number {
  const size = kernel.memory.pageSize(page);
  const half = size / 2;
  for (let at = 0; at < size; at += half) {
    const frame = kernel.memory.reach(page);
    if (typeof frame === 'number') return frame === ERRNO.EFAULT ? ERRNO.ENOENT : frame;
    if (bytes) frame.set(bytes.subarray(at, at + half), at);
    else frame.fill(0, at, at + half);
    kernel.preempt(false);
  }
  return 0;
}
