import {
  type AccessSite,
  type Coverage,
  type Requirements,
  SITE_NAMES,
  type SiteCoverage,
} from '../api/index.js';
import { NATIVE_SITES, type NativeSite, startAccessor } from '../accessors/index.js';
import { memoryBackend } from '../backends/memory/index.js';
import {
  measureCoverage,
  userfaultfd,
  type UserfaultfdBackendOptions,
} from '../backends/userfaultfd/index.js';
import {
  GUEST_COVERAGE_CASES,
  type GuestCoverageCase,
  measureGuestCoverage,
  probeGuestCoverage,
} from '../guests/index.js';
import { type AccessEnd, measureThroughPager } from './pager-coverage.js';

/** A backend in one of its forms, and how to find out what it covers here. */
export interface CatalogueEntry {
  readonly name: string;
  /** In a few words. */
  readonly about: string;
  /** Whether no other may be measured meanwhile: a process started then would hold on to the guest's memory file. */
  readonly alone: boolean;
  probe(): Requirements;
  /** Tries each site that can be tried. Precondition: the requirements are met. */
  measure(): Promise<Measured>;
}

export interface Measured {
  /** As seen; rows that could not be tried stay `declared`. */
  readonly coverage: Coverage;
  /** What the backend says of itself, where it can be wrong about this host. */
  readonly declared?: Coverage;
}

/** Every backend of this version, the real ones first. */
export const CATALOGUE: readonly CatalogueEntry[] = [
  userfaultfdEntry('userfaultfd', 'private anonymous memory', {}, 'anonymous'),
  userfaultfdEntry('uffd shmem', 'userfaultfd on a memory file', {}, 'shmem'),
  userfaultfdEntry('uffd user', 'userfaultfd with UFFD_USER_MODE_ONLY', { userModeOnly: true }, 'anonymous'),
  userfaultfdEntry('uffd sigbus', 'userfaultfd with UFFD_FEATURE_SIGBUS', { sigbus: true }, 'anonymous'),
  ...GUEST_COVERAGE_CASES.map(guestEntry),
  {
    name: 'memory',
    about: 'a model of the kernel in this process, everywhere',
    alone: false,
    probe: () => memoryBackend().probe(),
    measure: measureModel,
  },
];

function userfaultfdEntry(
  name: string,
  about: string,
  options: UserfaultfdBackendOptions,
  memory: 'anonymous' | 'shmem',
): CatalogueEntry {
  return {
    name,
    about,
    alone: false,
    probe: () => userfaultfd(options).probe(),
    measure: async () => {
      const coverage = await measureCoverage({
        backend: options,
        memory,
        sites: NATIVE_SITES,
        start: (site, layout) => startAccessor(site as NativeSite, layout),
      });
      const guest = { backend: 'userfaultfd', memory, userfaultfd: options } as const;
      if (!probeGuestCoverage(guest).met) return { coverage };
      const { declared, seen } = await measureGuestCoverage(guest);
      return { declared, coverage: coverage.map((row) => measuredOf(seen, row.site) ?? row) };
    },
  };
}

const measuredOf = (coverage: Coverage, site: AccessSite): SiteCoverage | undefined =>
  coverage.find((row) => row.site === site && row.evidence === 'measured');

/** A backend that is part of a VM, tried with vCPUs. */
function guestEntry({ name, about, ...choice }: GuestCoverageCase): CatalogueEntry {
  return {
    name,
    about,
    alone: true,
    probe: () => probeGuestCoverage(choice),
    measure: async () => {
      const { declared, seen } = await measureGuestCoverage(choice);
      return { declared, coverage: seen };
    },
  };
}

async function measureModel(): Promise<Measured> {
  const backend = memoryBackend();
  const sites = SITE_NAMES.filter((site) => site !== 'kernel-visibility');
  const coverage = await measureThroughPager({
    backend,
    memory: 'shmem',
    pageSize: 4096,
    base: 0n,
    sites,
    access: async (site, page): Promise<AccessEnd> => {
      const { state, bytes } = await backend.kernel.run({ site, page, length: 1 });
      return state === 'done' ? bytes[0]! : state === 'injected' ? 'injected' : 'errored';
    },
  });
  return { coverage };
}
