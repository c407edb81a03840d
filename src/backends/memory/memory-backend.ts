import {
  type AccessSite,
  type Backend,
  type Coverage,
  DemandPagingError,
  type FaultKind,
  type MemoryEvent,
  type MemoryKind,
  type MemoryLayout,
  type PageIndex,
  PageStates,
  requirements,
  SITE_NAMES,
  type Supports,
  VERBS,
  type Verb,
} from '../../api/index.js';
import { type ModelMechanism } from './mechanism.js';
import { blocking } from './mechanisms/blocking.js';
import { ModelAttachment } from './model-attachment.js';
import { putContents, settleModel } from './model-contents.js';
import { ModelKernel, type SiteMechanisms } from './model-kernel.js';
import { ModelMemory } from './model-memory.js';
import { KINDS, refuseForeign } from './refuse-foreign.js';

export interface ModelOptions {
  /** Default `memory`. */
  readonly name?: string;
  /**
   * Which mechanisms stand before which sites. Default: {@link blocking} before every site that goes
   * through the watched mapping, none before `external-mapping` and `kernel-visibility`.
   */
  readonly sites?: SiteMechanisms;
  /** Verbs to declare, of those the memory takes. Default: all. */
  readonly verbs?: readonly Verb[];
  /** Events to send. Default: all. */
  readonly events?: readonly MemoryEvent['kind'][];
  /** Whether a page that is in the page cache and not mapped faults (`minor`). Default true. */
  readonly minor?: boolean;
  /** The verb that brings contents. Default `copy`. */
  readonly install?: Supports['install'];
  /**
   * What the memory has of a page before anybody brings it: mapped if it is anonymous, else in the page
   * cache. What becomes of it the regions' `contents` say. Default: nothing.
   */
  readonly contents?: (page: PageIndex) => Uint8Array | undefined;
  /** Staging, in bytes; at least the largest page is taken. Default 256 KiB. */
  readonly staging_bytes?: number;
}

/** A {@link Backend} whose attachments have a model kernel each. */
export interface MemoryBackend extends Backend {
  attach(layout: MemoryLayout, states?: PageStates): Promise<ModelAttachment>;
  /** The kernel of the last attachment. Throws CLOSED before the first. */
  readonly kernel: ModelKernel;
}

const EVENTS: readonly MemoryEvent['kind'][] = ['remove', 'unmap', 'remap', 'fork'];
const DEFAULT_STAGING_BYTES = 256 * 1024;

/** What the kernel's ioctls do on each kind of memory; `fail` is the model's own. */
const VERBS_OF: Readonly<Record<MemoryKind, readonly Verb[]>> = {
  anonymous: ['copy', 'zeropage', 'move', 'poison', 'writeprotect', 'rwprotect', 'wake', 'fail'],
  shmem: ['copy', 'zeropage', 'continue', 'poison', 'writeprotect', 'rwprotect', 'wake', 'fail'],
  hugetlb: ['copy', 'continue', 'poison', 'writeprotect', 'rwprotect', 'wake', 'fail'],
  'guest-memfd': [],
};

/**
 * The kernel model as a backend: pages real bytes in this process's own memory, on any platform, with nothing
 * native; the embedded default, the reference the conformance suite is first run on, and the ground on which
 * mechanisms are prototyped.
 *
 * Its ports open in the isolate that attached (`here`). Accesses are made through {@link
 * MemoryBackend.kernel}: awaited (`kernel.run`) or stepped by a scheduler (`kernel.access`). `attach` maps
 * nothing, so regions that are mapped already are refused.
 *
 * Blocks nobody. Errors: NOT_SUPPORTED for `guest-memfd` memory, for a region with an address or a file, and
 * where the layout's kinds of memory have no install verb in common; NOT_EMPTY, PAGE_VANISHED (see {@link
 * RegionSpec.contents}).
 */
export function memoryBackend(options: ModelOptions = {}): MemoryBackend {
  const { name = 'memory', sites = watchedSites(() => blocking()) } = options;
  let last: ModelKernel | undefined;
  return {
    name,
    probe: () => requirements([]),
    async attach(layout, states = PageStates.create(layout.pageCount)) {
      refuseForeign(layout.regions);
      const supports = supportsOf(layout, options, sites);
      const kernel = new ModelKernel(
        new ModelMemory(layout, supports.faults.includes('minor')),
        sites,
        supports.events,
      );
      if (options.contents) putContents(kernel.memory, options.contents);
      settleModel(kernel.memory, layout.regions, states);
      last = kernel;
      const largest = Math.max(...layout.regions.map(({ pageSize }) => pageSize));
      const staging_bytes = Math.max(largest, options.staging_bytes ?? DEFAULT_STAGING_BYTES);
      return new ModelAttachment({ kernel, supports, coverage: coverageOf(layout, sites), staging_bytes });
    },
    get kernel(): ModelKernel {
      if (!last) throw new DemandPagingError('CLOSED', 'this backend was not attached yet');
      return last;
    },
  };
}

/** One mechanism before every site that goes through the watched mapping. */
export function watchedSites(mechanism: () => ModelMechanism): SiteMechanisms {
  const one = [mechanism()];
  const watched = SITE_NAMES.filter((site) => site !== 'external-mapping' && site !== 'kernel-visibility');
  return Object.fromEntries(watched.map((site) => [site, one]));
}

function supportsOf(layout: MemoryLayout, options: ModelOptions, sites: SiteMechanisms): Supports {
  const { minor = true, install, events = EVENTS } = options;
  const kinds = [...new Set(layout.regions.map(({ memory }) => memory))];
  const verbs = VERBS.filter(
    (verb) => kinds.every((kind) => VERBS_OF[kind].includes(verb)) && (options.verbs ?? VERBS).includes(verb),
  );
  const brings =
    install ?? (verbs.includes('copy') ? 'copy' : verbs.includes('continue') ? 'continue' : 'move');
  if (!verbs.includes(brings))
    throw new DemandPagingError('NOT_SUPPORTED', `this memory cannot be filled by ${brings}`);
  const faults: FaultKind[] = ['missing'];
  if (minor && verbs.includes('continue')) faults.push('minor');
  if (verbs.includes('writeprotect')) faults.push('write-protect');
  if (verbs.includes('rwprotect')) faults.push('rwp');
  const effects = new Set(
    Object.values(sites)
      .flatMap((chain) => chain.slice(0, 1))
      .map(({ effect }) => effect),
  );
  const [only] = effects;
  return {
    verbs,
    faults,
    events,
    memory: KINDS,
    threadIds: true,
    discard: true,
    freeze: verbs.includes('rwprotect') ? 'full' : 'missing-only',
    directCopy: false,
    install: brings,
    fill: verbs.includes('continue'),
    residency: true,
    changeRegions: true,
    stops:
      effects.size === 1 && (only === 'blocks' || only === 'errors' || only === 'exits') ? only : 'mixed',
  };
}

/** The first mechanism before a site is the one that a missing page meets; without one nobody notices. */
function coverageOf(layout: MemoryLayout, sites: SiteMechanisms): Coverage {
  const granule_bytes = Math.max(...layout.regions.map(({ pageSize }) => pageSize));
  const shared = layout.regions.some(({ memory }) => memory !== 'anonymous');
  return SITE_NAMES.filter(
    (site) => site !== 'kernel-visibility' && (site !== 'external-mapping' || shared || sites[site]),
  ).map((site: AccessSite) => {
    const [first] = sites[site] ?? [];
    const effect = first?.effect ?? 'unmediated';
    return { site, effect, granule_bytes, address: first?.address ?? 'none', evidence: 'declared' };
  });
}
