import { type Attachment, type Backend } from '../../api/backend.js';
import { requirements } from '../../api/capability.js';
import { DemandPagingError } from '../../api/error.js';
import { type FaultKind, type MemoryEvent } from '../../api/fault.js';
import { type MemoryLayout, type Region } from '../../api/layout.js';
import { PageStates } from '../../api/page-states.js';
import { type Verb } from '../../api/resolution.js';
import {
  aThread,
  ERRNO,
  openProcess,
  raw,
  setNonBlocking,
  UFFD_FEATURE,
  UffdArrivals,
  UFFDIO,
  Userfaultfd,
} from '../../linux/index.js';
import { isFiltered } from '../../linux/failure.js';
import { AddressMap, type Segment, segmentOf } from './address-map.js';
import { type OpenShard, UserfaultfdAttachment } from './attachment.js';
import { declaredCoverage } from './coverage.js';
import { Kicker } from './kick.js';
import { completeOptions, FOREIGN_EVENTS, type UserfaultfdChoice } from './options.js';
import { checkForeign } from './region-memory.js';
import { settleForeign } from './foreign-contents.js';
import { supportsOf } from './supports.js';
import { takeOver } from './take-over.js';
import { maskOf } from './verb-mask.js';

export interface AdoptOptions {
  /**
   * A userfaultfd that another process made, shook hands on and registered its memory with. Taken over by
   * `attach`: closed when the attachment closes. It is made non-blocking, for the other process, too.
   */
  readonly uffd: number;
  /**
   * The process whose memory it is, if known: its end is then noticed at once (MEMORY_GONE), not at the next
   * fault; and a region can say what is to become of the pages that it has ({@link RegionSpec.contents}).
   */
  readonly pid?: number | undefined;
  /** Modes it registered its memory with. Default `missing`. */
  readonly faults?: readonly FaultKind[] | undefined;
  /** Events it switched on. Default `remove`, as Firecracker does. */
  readonly events?: readonly MemoryEvent['kind'][] | undefined;
  /** It switched THREAD_ID on. Default false. */
  readonly threadIds?: boolean | undefined;
  /** It switched WP_ASYNC on. Default false. */
  readonly asyncWriteProtect?: boolean | undefined;
  /** It made it with UFFD_USER_MODE_ONLY. Default false. */
  readonly userModeOnly?: boolean | undefined;
  /** Staging memory, in bytes. Default 4 MiB. */
  readonly staging_bytes?: number | undefined;
}

/**
 * Demand paging of another process's memory, by a userfaultfd received from it (SCM_RIGHTS, a `fork` event,
 * pidfd_getfd). No handshake is done: what was negotiated is what the caller says. Every region of the layout
 * must have its `hva`, an address in the *other* process; nothing is mapped here, so the attachment has no
 * memory and cannot discard, and pages cannot be moved in. Closing it closes the descriptor and unregisters
 * nothing: while the other process holds a copy, its accesses wait.
 *
 * `attach` wakes every access that waits in the regions: one whose fault an earlier handler read and did not
 * answer faults anew, and is answered. Precondition: an earlier handler reads the userfaultfd no more, or it
 * takes that fault, too.
 *
 * A region's `contents` have no default here: pages that the process has (it, or an earlier handler brought
 * them) are found one by one and left as they are. With `refuse` or `keep` they are looked for
 * (/proc/PID/pagemap; not of shared memory). A handler that takes over from one that was told of removals
 * needs its `states`: what was removed is missing like what never came, and would come from the source again.
 *
 * Blocks: never. Errors: RangeError for options out of bounds. `attach`: BAD_DESCRIPTOR (not open; not a
 * userfaultfd; one without its handshake), which leaves the descriptor as it was; BAD_RANGE for a region
 * without an `hva` or with one that is no address of that process; ALREADY_REGISTERED for a second `attach`;
 * MEMORY_GONE (ESRCH: the process has ended); NOT_EMPTY, PAGE_VANISHED, NO_PERMISSION, NOT_SUPPORTED
 * (`contents`, see above); KERNEL. Requires: no privilege. Source: userfaultfd(2), ioctl_userfaultfd(2).
 */
export function adopt(options: AdoptOptions): Backend {
  const { faults, asyncWriteProtect, userModeOnly, staging_bytes } = options;
  const choice = completeOptions(
    {
      faults,
      asyncWriteProtect,
      userModeOnly,
      staging_bytes,
      events: options.events ?? ['remove'],
    },
    FOREIGN_EVENTS,
  );
  if (!Number.isInteger(options.uffd) || options.uffd < 0)
    throw new RangeError(`uffd is ${options.uffd}; it takes a descriptor`);
  let attached = false;
  return {
    name: 'userfaultfd (adopted)',
    probe: () => requirements([aThread()]),

    attach: async (layout, states = PageStates.create(layout.pageCount)) => {
      if (attached)
        throw new DemandPagingError('ALREADY_REGISTERED', 'an adopted userfaultfd serves one attachment');
      layout.regions.forEach(checkForeign);
      const attachment = attachForeign(layout, states, choice, options);
      attached = true;
      return attachment;
    },
  };
}

function attachForeign(
  layout: MemoryLayout,
  states: PageStates,
  choice: UserfaultfdChoice,
  options: AdoptOptions,
): Attachment {
  const features = options.threadIds ? UFFD_FEATURE.THREAD_ID : 0;
  const verbs = foreignVerbs(options.uffd, choice.faults);
  const pages = { first: 0, count: layout.pageCount };
  const segments = layout.regions.map((region): Segment => {
    const segment = segmentOf(region, Number(region.hva), undefined, 0, pages)!;
    return {
      ...segment,
      verbs: maskOf(verbs.filter((verb) => !(verb === 'zeropage' && region.memory === 'hugetlb'))),
    };
  });
  takeOver(options.uffd, segments);
  const settle = (known: PageStates, regions: readonly Region[], others: readonly Region[]): void =>
    settleForeign({ regions, others, states: known, pid: options.pid });
  settle(states, layout.regions, []);
  setNonBlocking(options.uffd, true); // poll(2) answers ERR otherwise
  const kicker = new Kicker();
  let process: number | undefined;
  try {
    process = options.pid === undefined ? undefined : openProcess(options.pid);
  } catch (error) {
    kicker.close();
    throw error;
  }
  const token = {
    uffd: options.uffd,
    kick: kicker.token,
    arrivals: UffdArrivals.share(),
    process,
    pages: [pages],
    segments,
    staging_bytes: choice.staging_bytes,
    local: false,
    threadIds: options.threadIds ?? false,
  };
  const shard: OpenShard = {
    pages: [pages],
    uffd: Userfaultfd.adopt(options.uffd, features, 1),
    kicker,
    token,
  };
  return new UserfaultfdAttachment({
    layout,
    coverage: declaredCoverage(layout, choice),
    supports: supportsOf({ choice, features, segments, local: false }),
    shards: [shard],
    map: new AddressMap(segments),
    memory: undefined,
    regions: new Map(),
    mode: undefined,
    settleForeign: settle,
  });
}

/**
 * What works on another process's memory. POISON needs no feature to be asked for, only a kernel that has it.
 */
function foreignVerbs(uffd: number, faults: readonly FaultKind[]): Verb[] {
  const verbs: Verb[] = ['copy', 'zeropage', 'wake'];
  if (faults.includes('minor')) verbs.push('continue');
  if (faults.includes('write-protect')) verbs.push('writeprotect');
  if (faults.includes('rwp')) verbs.push('rwprotect');
  if (knowsPoison(uffd)) verbs.push('poison');
  return verbs;
}

/**
 * Asked of the descriptor itself, with a structure that cannot be read: a kernel that has the verb says so
 * (EFAULT, or EAGAIN while the memory changes), and an older one that there is none (EINVAL). A filter that
 * refuses the verb does not refute it.
 */
function knowsPoison(uffd: number): boolean {
  const result = raw.ioctl(uffd, UFFDIO.POISON, 0);
  return result === -ERRNO.EFAULT || result === -ERRNO.EAGAIN || isFiltered(-result);
}
