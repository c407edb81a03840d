import { type PageRange } from '../../api/address.js';
import { type Backend } from '../../api/backend.js';
import { type MemoryLayout, type Region } from '../../api/layout.js';
import { PageStates } from '../../api/page-states.js';
import {
  checkPlaces,
  UFFD_FEATURE,
  UffdArrivals,
  Userfaultfd,
  type UserfaultfdOptions,
  userfaultfdSupport,
} from '../../linux/index.js';
import { AddressMap, type Segment, segmentOf } from './address-map.js';
import { type OpenShard, UserfaultfdAttachment } from './attachment.js';
import { declaredCoverage } from './coverage.js';
import { Kicker } from './kick.js';
import { chooseFeatures, registerMode } from './negotiation.js';
import { completeOptions, type UserfaultfdBackendOptions, type UserfaultfdChoice } from './options.js';
import { probeUserfaultfd } from './probe.js';
import { LocalMemory } from './raw-memory.js';
import { RegionContents } from './region-contents.js';
import {
  bringMemory,
  checkNamed,
  checkRegion,
  giveBack,
  placeOf,
  placesOf,
  type RegionMemory,
} from './region-memory.js';
import { registerSegment } from './register.js';
import { divide } from './shards.js';
import { supportsOf } from './supports.js';

/**
 * Demand paging by userfaultfd(2), for memory of this process.
 *
 * `attach` maps the regions without an `hva` (anonymous, memfd, huge pages) and adopts those with one,
 * registers all of them, and hands out a port for each shard. What others do to the memory (madvise, munmap,
 * mremap) is reported to the port, and *waits there*: whoever changes the memory must not be the thread that
 * reads the port. If the process ends with an attachment open, it ends at once, by `_exit`, so that no
 * blocked accessor of its own wakes to zeros; a pager poisons what is missing before, for those of other
 * processes.
 *
 * Blocks: `attach`, `discard` and `close` for the kernel's mmap lock; `discard` until its event has been
 * read. Errors: RangeError for options out of bounds. `attach`: NO_PERMISSION (EPERM, EACCES; the hint names
 * the setting), NO_DEVICE, NOT_SUPPORTED (features or memory this kernel does not take), ALREADY_REGISTERED
 * (EBUSY), NO_HUGE_PAGES (ENOMEM), BAD_RANGE (ENOMEM: not mapped; regions with memory in common, or whose
 * file is another than is mapped), NOT_EMPTY, PAGE_VANISHED (see {@link RegionSpec.contents}), KERNEL; then
 * nothing is left behind. Requires: CONFIG_USERFAULTFD; access to /dev/userfaultfd, or CAP_SYS_PTRACE, or
 * vm.unprivileged_userfaultfd=1, or `userModeOnly`. `move`: Linux 6.8; `poison`: 6.6; `rwp`: 7.3. Source:
 * ioctl_userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst.
 */
export function userfaultfd(options: UserfaultfdBackendOptions = {}): Backend {
  const choice = completeOptions(options);
  return {
    name: 'userfaultfd',
    probe: (memory) => probeUserfaultfd(choice, attach, memory),

    attach: async (layout, states = PageStates.create(layout.pageCount)) => attach(layout, states, choice),
  };
}

/** What to undo, newest first, when something fails half-way. */
type Undo = (() => void)[];

function attach(layout: MemoryLayout, states: PageStates, choice: UserfaultfdChoice): UserfaultfdAttachment {
  layout.regions.forEach(checkRegion);
  const descriptor = {
    via: choice.via === 'auto' ? 'either' : choice.via,
    userModeOnly: choice.userModeOnly,
  } as const;
  const kinds = new Set(layout.regions.map((region) => region.memory));
  const features = chooseFeatures(choice, kinds, userfaultfdSupport(descriptor).mask);
  const mode = registerMode(choice);
  const undo: Undo = [];
  try {
    const regions = layout.regions.map((region) => bring(region, undo));
    if (choice.install === 'continue') layout.regions.forEach((region, i) => checkNamed(region, regions[i]!));
    checkPlaces(placesOf(layout.regions, regions));
    const contents = new RegionContents(layout.regions, regions, states);
    undo.push(() => contents.close());
    const opened = divide(layout.pageCount, choice.shards).map((pages) => {
      const segments = layout.regions.flatMap((region, i) => {
        const { start, fd, fileOffset } = regions[i]!;
        return segmentOf(region, start, fd, fileOffset, pages) ?? [];
      });
      return { pages, segments, ...openUffd({ ...descriptor, features }, undo) };
    });
    let shards: OpenShard[] = [];
    contents.settle(
      () => (shards = opened.map((shard) => watched(shard, mode, choice.staging_bytes))),
      () => shards.forEach(unwatch),
    );
    contents.close();
    const segments = shards.flatMap(({ token }) => token.segments);
    const mapped = layout.mappedAt(regions.map(placeOf));
    const map = new AddressMap(segments);
    return new UserfaultfdAttachment({
      layout: mapped,
      coverage: declaredCoverage(mapped, choice),
      supports: supportsOf({ choice, features, segments, local: true }),
      shards,
      map,
      memory: new LocalMemory(mapped, map, choice.userModeOnly && !choice.sigbus, choice.sigbus),
      regions: new Map(layout.regions.map(({ firstPage }, i) => [firstPage, regions[i]!])),
      mode,
      settleForeign: undefined,
    });
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw error;
  }
}

function bring(region: Region, undo: Undo): RegionMemory {
  const memory = bringMemory(region);
  undo.push(() => giveBack(memory, [{ start: memory.start, length: Number(region.length) }]));
  return memory;
}

function openUffd(options: UserfaultfdOptions, undo: Undo): Pick<OpenShard, 'uffd' | 'kicker'> {
  const uffd = Userfaultfd.open(options);
  undo.push(() => uffd.close()); // ends its registrations, too
  const kicker = new Kicker();
  undo.push(() => kicker.close());
  return { uffd, kicker };
}

/** A shard with its segments registered: which verbs work on each, the kernel says then. */
function watched(
  {
    pages,
    segments,
    uffd,
    kicker,
  }: Pick<OpenShard, 'uffd' | 'kicker'> & {
    readonly pages: PageRange;
    readonly segments: readonly Segment[];
  },
  mode: number,
  staging_bytes: number,
): OpenShard {
  const registered = segments.map((segment): Segment => {
    return { ...segment, verbs: registerSegment(uffd, segment, mode) };
  });
  const token = {
    uffd: uffd.fd,
    kick: kicker.token,
    arrivals: UffdArrivals.share(),
    process: undefined,
    pages: [pages],
    segments: registered,
    staging_bytes,
    local: true,
    threadIds: (uffd.enabled & UFFD_FEATURE.THREAD_ID) !== 0,
  };
  return { pages: [pages], uffd, kicker, token };
}

function unwatch({ uffd, token }: OpenShard): void {
  for (const { start, count, pageSize } of token.segments) uffd.unregister(start, count * pageSize);
}
