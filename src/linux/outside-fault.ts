import { ERRNO } from './failure.js';
import { mapMemory } from './mapping.js';
import { hugePageSizes, pageSize } from './page-size.js';
import { type UffdFaultKind } from './userfaultfd-event.js';
import { type UffdPort } from './userfaultfd-port.js';

/**
 * Ends the wait of an access to memory of which only its address is known. `zeros`: the page comes as it
 * would without a userfaultfd, as zeros or as the page cache has it. `poison`: the access fails (SIGBUS,
 * EHWPOISON), and so does every later one to the page. A fault on protection is answered by lifting the
 * protection, whichever is asked for.
 *
 * The page size is not known either: base pages are tried first, and where the kernel refuses those, the
 * host's huge ones.
 *
 * Returns 0: the access goes on; it faults again where its memory has gone. Else `-errno`: EAGAIN while
 * events are unread; ESRCH, the process has ended; anything else, the access still waits. Blocks: never.
 */
export function answerOutsideFault(
  port: UffdPort,
  address: number,
  kind: UffdFaultKind,
  answer: 'zeros' | 'poison',
): number {
  const base = pageSize();
  let result = answerPage(port, address - (address % base), base, kind, answer);
  if (result !== -ERRNO.EINVAL) return result;
  for (const size of hugePageSizes()) {
    result = answerPage(port, address - (address % size), size, kind, answer);
    if (result !== -ERRNO.EINVAL) break;
  }
  return result;
}

function answerPage(
  port: UffdPort,
  start: number,
  size: number,
  kind: UffdFaultKind,
  answer: 'zeros' | 'poison',
): number {
  const result = resolvePage(port, start, size, kind, answer);
  // It is present, has left the page cache, or is no longer mapped: the access is retried.
  const isOver = result === -ERRNO.EEXIST || result === -ERRNO.ENOENT;
  return isOver || (kind === 'minor' && result === -ERRNO.EFAULT) ? port.wake(start, size) : result;
}

function resolvePage(
  port: UffdPort,
  start: number,
  size: number,
  kind: UffdFaultKind,
  answer: 'zeros' | 'poison',
): number {
  switch (kind) {
    case 'write-protect':
      return port.writeprotect(start, size, 0);
    case 'rwp':
      return port.rwprotect(start, size, 0);
    case 'minor':
      return answer === 'zeros' ? port.continue(start, size) : port.poison(start, size);
    case 'missing':
      if (answer === 'poison') return port.poison(start, size);
      return size === pageSize() ? port.zeropage(start, size) : copyZeros(port, start, size);
  }
}

/** The kernel cannot install a zeroed hugetlb page: zeros are copied from memory that is never written. */
function copyZeros(port: UffdPort, start: number, size: number): number {
  using zeros = mapMemory({ kind: 'anonymous', length: size });
  return port.copy(start, zeros.address, size);
}
