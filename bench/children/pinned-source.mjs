// A source of the resolver's thread that first binds this thread to a cpu: the library leaves its
// threads where the scheduler puts them, and a measurement must not depend on that.
import { arch } from 'node:os';
import { libc, NativeBlock } from 'demand-paging/linux';
import { openMemory } from 'demand-paging/sources';

const SCHED_SETAFFINITY = { x64: 203, arm64: 122 };

/**
 * @param {{ native: { address: number, length: number }, cpu: number }} options a negative cpu binds to none
 */
export function openPinned({ native, cpu }) {
  if (cpu >= 0) bind(cpu);
  return openMemory({ native });
}

/** @param {number} cpu */
function bind(cpu) {
  const mask = new NativeBlock(128);
  mask.words[cpu >>> 5] = 1 << (cpu & 31);
  const result = libc().syscall(SCHED_SETAFFINITY[arch()], 0, mask.length, mask.address, 0, 0, 0);
  mask.free();
  if (result < 0) throw new Error(`cannot bind the resolver to cpu ${cpu}: errno ${libc().errno()}`);
}
