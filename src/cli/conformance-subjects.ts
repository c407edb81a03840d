import { SITE_NAMES } from '../api/index.js';
import { type NativeSite, NATIVE_SITES, startAccessor } from '../accessors/index.js';
import { memoryBackend, type ModelAttachment } from '../backends/memory/index.js';
import { foreignMapping } from '../backends/userfaultfd/foreign-mapping.js';
import { userfaultfd, type UserfaultfdBackendOptions } from '../backends/userfaultfd/index.js';
import { type RealSubject, type SteppedSubject } from '../conformance/index.js';
import { GUEST_BACKENDS, type GuestBackendName, guestSubject, probeGuest } from '../guests/index.js';
import { pageSize } from '../linux/index.js';
import { type Target } from './evaluation/target.js';

/** So few that staging fills up. */
const MODEL_STAGING_BYTES = 6 * 4096;

/** The model as the library has it: every site waits. */
export const MEMORY: Target = {
  name: 'memory',
  title: 'the model of a kernel in this process',
  group: 'model',
  status: 'part of this library',
  probe: () => memoryBackend().probe(),
  subject: (): SteppedSubject => ({
    name: 'memory',
    deterministic: true,
    sites: SITE_NAMES.filter((site) => site !== 'kernel-visibility' && site !== 'external-mapping'),
    backend: () => memoryBackend({ staging_bytes: MODEL_STAGING_BYTES }),
    stepping: (attachment) => (attachment as ModelAttachment).kernel,
  }),
};

const GUEST_TITLES: Readonly<Record<GuestBackendName, string>> = {
  'kvm-exit': 'exits of KVM_RUN on a vacated slot',
  'memslot-hole': 'exits of KVM_RUN where there is no slot',
  composite: 'kvm-exit for vCPUs, userfaultfd for the rest',
  'guest-memfd': 'the same, with memory in a guest_memfd',
};

/** Another process that maps the memory has so long, in milliseconds, for one access. */
const FOREIGN_MS = 20_000;

function userfaultfdSubject(
  name: string,
  options: UserfaultfdBackendOptions,
  more: Partial<RealSubject>,
): RealSubject {
  return {
    name,
    deterministic: false,
    page_bytes: pageSize(),
    sites: NATIVE_SITES,
    backend: (around = (kernel) => kernel) => around(userfaultfd(options)),
    accessor: (site, { layout }) =>
      site === 'external-mapping'
        ? Promise.resolve(foreignMapping(layout, FOREIGN_MS))
        : startAccessor(site as NativeSite, layout),
    mayFail: ['vmm-syscall', 'kernel-copy', 'external-vm-readv'],
    killable: ['external-vm-readv'],
    ...more,
  };
}

/** The backends of this host's kernel. */
export const LIVE: readonly Target[] = [
  {
    name: 'userfaultfd',
    title: 'userfaultfd on private memory',
    group: 'live',
    status: 'on this host',
    probe: () => userfaultfd().probe(),
    // All that it can do, so that as little as possible is skipped.
    subject: () =>
      userfaultfdSubject(
        'userfaultfd',
        { faults: ['missing', 'write-protect'] },
        { memory: 'anonymous', discardSite: 'vmm-load' },
      ),
  },
  {
    name: 'userfaultfd-shmem',
    title: 'userfaultfd on a memory file that others map',
    group: 'live',
    status: 'on this host',
    probe: () => userfaultfd({ install: 'continue' }).probe(),
    subject: () =>
      userfaultfdSubject(
        'userfaultfd-shmem',
        { install: 'continue' },
        { memory: 'shmem', sites: [...NATIVE_SITES, 'external-mapping'] },
      ),
  },
  ...GUEST_BACKENDS.map((backend): Target => ({
    name: backend,
    title: GUEST_TITLES[backend],
    group: 'live',
    status: 'on this host',
    probe: () => probeGuest({ backend }),
    subject: () => guestSubject({ backend }),
  })),
];
