import { SITE_NAMES } from '../api/index.js';
import { type NativeSite, NATIVE_SITES, startAccessor } from '../accessors/index.js';
import { memoryBackend, type ModelAttachment } from '../backends/memory/index.js';
import { userfaultfd } from '../backends/userfaultfd/index.js';
import { type Subject } from '../conformance/index.js';
import { pageSize } from '../linux/index.js';

/** So few that staging fills up. */
const MODEL_STAGING_BYTES = 6 * 4096;

/** What the suite can be run on from the command line. */
export const SUBJECTS: Readonly<Record<string, () => Subject>> = {
  memory: () => ({
    name: 'memory',
    deterministic: true,
    sites: SITE_NAMES.filter((site) => site !== 'kernel-visibility' && site !== 'external-mapping'),
    backend: () => memoryBackend({ stagingBytes: MODEL_STAGING_BYTES }),
    stepping: (attachment) => (attachment as ModelAttachment).kernel,
  }),
  userfaultfd: () => ({
    name: 'userfaultfd',
    deterministic: false,
    memory: 'anonymous',
    pageBytes: pageSize(),
    sites: NATIVE_SITES,
    // All that it can do, so that as little as possible is skipped.
    backend: () => userfaultfd({ faults: ['missing', 'write-protect'] }),
    accessor: (site, { layout }) => startAccessor(site as NativeSite, layout),
    discardSite: 'vmm-load',
    mayFail: ['vmm-syscall', 'kernel-copy', 'external-vm-readv'],
    killable: ['external-vm-readv'],
  }),
};
