import { NATIVE_SITES, type NativeSite, startAccessor } from 'demand-paging/accessors';
import { userfaultfd, type UserfaultfdBackendOptions } from 'demand-paging/backends/userfaultfd';
import { type RealSubject } from 'demand-paging/conformance';
import { pageSize } from 'demand-paging/linux';

/** userfaultfd on this kernel, with threads and a process that touch its memory. */
function subject(
  name: string,
  options: UserfaultfdBackendOptions,
  more: Partial<RealSubject> = {},
): RealSubject {
  return {
    name,
    deterministic: false,
    page_bytes: pageSize(),
    sites: NATIVE_SITES,
    backend: () => userfaultfd(options),
    accessor: (site, { layout }) => startAccessor(site as NativeSite, layout),
    mayFail: ['vmm-syscall', 'kernel-copy', 'external-vm-readv'],
    killable: ['external-vm-readv'],
    ...more,
  };
}

/** A subject, and the properties that do not apply to it, in their order. */
export interface Case {
  readonly subject: RealSubject;
  readonly except: readonly string[];
}

/** Of a kernel with read and write protection, 7.3 and newer: pages that are present can be frozen. */
export const PROTECTED_SUBJECT: Case = {
  subject: subject(
    'userfaultfd, private memory with read and write protection',
    { faults: ['missing', 'rwp'] },
    { discardSite: 'vmm-load' },
  ),
  except: ['write-protect-is-atomic', 'kernel-access-errors-then-retries'],
};

export const USERFAULTFD_SUBJECTS: readonly Case[] = [
  {
    subject: subject(
      'userfaultfd, private memory',
      { faults: ['missing', 'write-protect'] },
      { discardSite: 'vmm-load' },
    ),
    except: ['kernel-access-errors-then-retries'],
  },
  {
    subject: subject(
      'userfaultfd, a memory file filled in place',
      { install: 'continue' },
      { memory: 'shmem' },
    ),
    // Of this memory no thread can drop pages by madvise: they stay in the file.
    except: [
      'remove-before-fault',
      'again-makes-progress',
      'write-protect-is-atomic',
      'kernel-access-errors-then-retries',
    ],
  },
  {
    subject: subject(
      'userfaultfd, every access fails',
      { sigbus: true },
      { sites: ['vmm-syscall', 'kernel-copy', 'external-vm-readv'] },
    ),
    // Nobody waits, so nobody has to be woken, and the pager serves requests only.
    except: [
      'duplicate-wakes',
      'no-lost-wake',
      'no-zero-leak',
      'no-torn-page',
      'removed-reads-zero',
      'remove-before-fault',
      'prefetch-never-resurrects',
      'again-makes-progress',
      'close-is-definite',
      'source-failure-is-loud',
      'handler-death-is-seen',
      'poison-is-sticky, until the page is dropped',
      'write-protect-is-atomic',
      'freeze-is-reversible',
      'kernel-access-blocks',
      'exit-while-blocked-terminates',
    ],
  },
];
