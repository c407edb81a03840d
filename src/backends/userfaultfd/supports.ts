import { type Supports } from '../../api/capability.js';
import { UFFD_FEATURE } from '../../linux/index.js';
import { type Segment } from './address-map.js';
import { type UserfaultfdChoice } from './options.js';
import { verbsOf } from './verb-mask.js';

export interface SupportsParts {
  readonly choice: UserfaultfdChoice;
  readonly features: number;
  readonly segments: readonly Segment[];
  /** The memory is mapped in this process. */
  readonly local: boolean;
}

/** What the kernel's answers add up to: a verb is declared if it works on every region. */
export function supportsOf({ choice, features, segments, local }: SupportsParts): Supports {
  const verbs = verbsOf(segments.reduce((mask, segment) => mask & segment.verbs, ~0));
  const { faults, asyncWriteProtect, events, install, sigbus, userModeOnly } = choice;
  return Object.freeze<Supports>({
    verbs,
    faults: sigbus ? [] : faults.filter((fault) => !(fault === 'write-protect' && asyncWriteProtect)),
    events,
    memory: ['anonymous', 'shmem', 'hugetlb'],
    threadIds: (features & UFFD_FEATURE.THREAD_ID) !== 0,
    discard: local,
    freeze: verbs.includes('rwprotect') ? 'full' : 'missing-only',
    directCopy: install !== 'move', // a move would take the source's own pages away
    install,
    fill: local && verbs.includes('continue') && segments.every((segment) => segment.fd >= 0),
    residency: local,
    changeRegions: true,
    stops: sigbus ? 'errors' : userModeOnly ? 'mixed' : 'blocks',
  });
}
