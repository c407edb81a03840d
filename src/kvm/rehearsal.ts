import {
  check,
  duplicate,
  EventFd,
  installKickSignal,
  mapMemory,
  OWN_MEMORY_HINT,
  pageSize,
  Poller,
  raw,
  readMemory,
  UFFD_REGISTER_MODE,
  Userfaultfd,
  writeMemory,
} from '../linux/index.js';
import { isFiltered } from '../linux/failure.js';

/**
 * Tries the system calls that these backends make besides KVM's, which attaching makes before any page is
 * served. `watched`: with a userfaultfd. Blocks: never. Errors: the refused call's. Leaves nothing behind.
 */
export function rehearse(watched: boolean): void {
  using doorbell = EventFd.create();
  raw.close(duplicate(doorbell.fd));
  using poller = new Poller([doorbell.fd]);
  check(poller.wait(0), 'poll', 'faults cannot be waited for');
  check(doorbell.ring(), 'write', 'an eventfd cannot be rung');
  installKickSignal();
  using memory = mapMemory({ kind: 'anonymous', length: 2 * pageSize() });
  const half = memory.address + pageSize();
  const context = { hint: OWN_MEMORY_HINT };
  check(writeMemory(memory.address, half, 8), 'process_vm_writev', 'memory cannot be written', context);
  check(readMemory(memory.address, half, 8), 'process_vm_readv', 'memory cannot be read', context);
  if (watched) rehearseUserfaultfd(memory.address);
}

/** Tries verbs on empty ranges, which the kernel refuses with EINVAL. */
function rehearseUserfaultfd(address: number): void {
  using uffd = Userfaultfd.open();
  uffd.register(address, pageSize(), UFFD_REGISTER_MODE.MISSING);
  const { port } = uffd;
  check(port.wake(address, pageSize()), 'ioctl UFFDIO_WAKE', 'waiters cannot be woken');
  const onNothing = [
    () => port.copy(address, address, 0),
    () => port.zeropage(address, 0),
    () => port.poison(address, 0),
  ];
  for (const verb of onNothing) {
    const result = verb();
    if (isFiltered(-result)) check(result, raw.failedCall(), 'the kernel installs no pages');
  }
}
