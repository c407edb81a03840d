import { SITE_NAMES } from '../api/index.js';
import { type ModelMechanism } from '../backends/memory/index.js';
import { defineUapi } from './uapi.js';
import { before } from './vcpu-sites.js';

/**
 * Presence is the page cache's, so it is the same through every mapping and for every accessor, with a VMA or
 * without. Whether this one mapping maps the page is no fault.
 */
const byFile = (): ModelMechanism => ({
  name: 'file-uffd',
  effect: 'blocks',
  address: 'exact',
  obstacle: ({ page, write, site }, { memory }) => {
    const obstacle = memory.obstacle(page, write);
    if (typeof obstacle === 'number' && site !== 'external-mapping') return obstacle;
    return memory.isResident(page) ? undefined : 'missing';
  },
  stop: (access, kind, kernel) => kernel.deliver(access, kind),
  // UFFDIO_INSERT: a whole page goes into the page cache, or EEXIST.
  carryOut: ({ verb, page, bytes }, { memory, trace }) => {
    if (verb !== 'copy' && verb !== 'zeropage') return undefined;
    const errno = memory.insert(page, bytes ?? new Uint8Array(memory.pageSize(page)));
    if (errno === 0) trace?.({ actor: { kind: 'page-cache' }, kind: 'inserted', page });
    return errno;
  },
});

/**
 * Peter Xu's counter-design: a userfaultfd registered on a file instead of a range of addresses. Faults are file
 * offsets, whatever has them; UFFDIO_INSERT fills the page cache. That holes punched in the file are announced as
 * UFFD_EVENT_REMOVE announces them for a range is taken over here; the mail does not say.
 *
 * Source: the thread "RFC: A KVM-specific alternative to UserfaultFD", November 2023.
 */
export const fileUffd = defineUapi({
  name: 'file-uffd',
  source: {
    title: 'RFC: A KVM-specific alternative to UserfaultFD (reply)',
    author: 'Peter Xu',
    date: '2023-11',
    reference: 'in the thread of CALzav=d23P5uE=oYqMpjFohvn0CASMJxXB_XEOEi-jtqWcFTDA@mail.gmail.com',
    status: 'an idea',
  },
  structs: [
    {
      name: 'uffdio_register_fd',
      fields: [
        { name: 'fd', type: 's32' },
        { name: 'pad', type: 'u32' },
        { name: 'mode', type: 'u64', comment: 'as in struct uffdio_register' },
        { name: 'ioctls', type: 'u64', comment: 'out: what can be done for this file' },
      ],
    },
    {
      name: 'uffdio_insert',
      fields: [
        { name: 'fd', type: 's32' },
        { name: 'pad', type: 'u32' },
        { name: 'offset', type: 'u64', comment: 'into the file' },
        { name: 'len', type: 'u64' },
        { name: 'src', type: 'u64' },
        { name: 'mode', type: 'u64' },
        { name: 'inserted', type: 's64', comment: 'out: bytes done, or a negative errno' },
      ],
    },
  ],
  ioctls: [
    {
      name: 'UFFDIO_REGISTER_FD',
      on: 'userfaultfd',
      type: 0xaa,
      number: 0x0a,
      direction: 'wr',
      struct: 'uffdio_register_fd',
      does: 'registers a whole file',
      errors: { EINVAL: 'a file that has no page cache', EBUSY: 'the file is registered already' },
    },
    {
      name: 'UFFDIO_INSERT',
      on: 'userfaultfd',
      type: 0xaa,
      number: 0x0b,
      direction: 'wr',
      struct: 'uffdio_insert',
      does: 'puts pages into the page cache and wakes the waiters',
      errors: {
        EEXIST: 'the page is in the page cache',
        EAGAIN: 'the file is changing',
        ENOENT: 'not registered',
      },
    },
  ],
  memory: 'shmem',
  verbs: ['copy', 'zeropage', 'wake'],
  events: ['remove', 'unmap'],
  defaults: {},
  kernelSide: () => ({
    sites: before(
      SITE_NAMES.filter((site) => site !== 'kernel-visibility'),
      byFile(),
    ),
  }),
});
