import { type AccessSite, type Coverage, type Effect, type SiteCoverage } from '../api/access.js';
import { fileOffset, gpa, type PageIndex } from '../api/address.js';
import { type FaultPort, openPort } from '../api/backend.js';
import { requirements, type Requirement, type Requirements, unmet } from '../api/capability.js';
import { eventLoopTurn } from '../api/event-loop-turns.js';
import { FaultBatch } from '../api/fault.js';
import { MemoryLayout } from '../api/layout.js';
import { OUTCOME, ResolutionBatch } from '../api/resolution.js';
import { type NativeSite, startAccessor } from '../accessors/index.js';
import { foreignMapping } from '../backends/userfaultfd/foreign-mapping.js';
import { Contents, type RealAccessor, type RealResult } from '../conformance/index.js';
import { hugePagePool, pageSize } from '../linux/index.js';
import {
  besideVcpus,
  CODED,
  GuestBackend,
  type GuestBackendChoice,
  isGuestSite,
  memoryOf,
  probeGuest,
} from './kvm-subject.js';
import { type GuestPlace, VcpuAccessor } from './vcpu-accessor.js';

/** A case to measure: a backend over a kind of memory. */
export interface GuestCoverageCase extends GuestBackendChoice {
  readonly name: string;
  /** In a few words. */
  readonly about: string;
}

/** Every backend that is part of a VM, over each kind of memory that it supports. */
export const GUEST_COVERAGE_CASES: readonly GuestCoverageCase[] = [
  { name: 'kvm-exit', about: 'exits of KVM_RUN on a vacated slot', backend: 'kvm-exit' },
  { name: 'exit shmem', about: 'the same, over a memory file', backend: 'kvm-exit', memory: 'shmem' },
  { name: 'exit hugetlb', about: 'the same, over huge pages', backend: 'kvm-exit', memory: 'hugetlb' },
  { name: 'slot hole', about: 'exits of KVM_RUN where there is no slot', backend: 'memslot-hole' },
  { name: 'composite', about: 'kvm-exit for vCPUs, userfaultfd for the rest', backend: 'composite' },
  { name: 'comp shmem', about: 'the same, over a memory file', backend: 'composite', memory: 'shmem' },
  { name: 'comp hugetlb', about: 'the same, over huge pages', backend: 'composite', memory: 'hugetlb' },
  { name: 'guest-memfd', about: 'the same, with memory in a guest_memfd', backend: 'guest-memfd' },
];

/** Start of guest memory: an address that no machine uses for anything else. */
const BASE = 0x4000_0000;
/**
 * A clear result takes milliseconds; a process that is started for an access takes seconds on a loaded
 * machine.
 */
const DEADLINE_MS = 15_000;
const NOBODY = 0xffff_ffff;

/** Sites that are tried, each on a page of its own. */
function sitesOf(choice: GuestBackendChoice): readonly AccessSite[] {
  const shared = memoryOf(choice) !== 'anonymous';
  // A single access looks atomic through a hole, too: KVM reads and then writes, and another vCPU may access
  // the page in between.
  const vcpu = CODED.filter((site) => choice.backend !== 'memslot-hole' || site !== 'vcpu-atomic');
  if (choice.backend === 'userfaultfd') return vcpu; // the others need no guest
  return [...vcpu, ...besideVcpus(choice), ...(shared ? (['external-mapping'] as const) : [])];
}

const pageBytesOf = (choice: GuestBackendChoice): number =>
  memoryOf(choice) === 'hugetlb' ? (hugePagePool()?.pageSize ?? 0x20_0000) : pageSize();

/** What this host lacks to measure a case. Never throws. */
export function probeGuestCoverage(choice: GuestBackendChoice): Requirements {
  const { list } = probeGuest(choice);
  if (memoryOf(choice) !== 'hugetlb') return requirements(list);
  const wanted = sitesOf(choice).length;
  let free: number | undefined;
  try {
    free = hugePagePool()?.free;
  } catch (error) {
    return requirements([...list, unmet('huge pages', error)]);
  }
  const met = free !== undefined && free >= wanted;
  const pages: Requirement = {
    what: 'huge pages',
    met,
    found: free === undefined ? 'none on this kernel' : `${free} free`,
    remedy: met ? '' : `sysctl vm.nr_hugepages=N with ${wanted} of them free`,
  };
  return requirements([...list, pages]);
}

/**
 * Measures the effect of a missing page on an access of each site, on this host's KVM, with vCPUs, KVM
 * itself, threads and processes: either a fault comes first (and of which thread), or the end of the access.
 * Rows that were tried are `measured`; the others, and those without a clear result in time, stay as
 * declared. The returned coverage says what was measured, whatever is declared.
 * Preconditions: {@link probeGuestCoverage} lacks nothing; no process is started meanwhile.
 * Blocks: never; each site takes at most fifteen seconds. Errors: as the backend's `attach`.
 */
export async function measureGuestCoverage(
  choice: GuestBackendChoice,
): Promise<{ readonly declared: Coverage; readonly seen: Coverage }> {
  const sites = sitesOf(choice);
  const page_bytes = pageBytesOf(choice);
  const backend = new GuestBackend(choice);
  const region = {
    gpa: gpa(BASE),
    sourceOffset: fileOffset(0),
    memory: memoryOf(choice),
    pageSize: page_bytes,
  };
  const attachment = await backend.attach(
    new MemoryLayout([{ ...region, length: BigInt(sites.length * page_bytes) }]),
  );
  const kernel = choice.backend === 'memslot-hole' ? 'translate' : 'string-io';
  const place = (): GuestPlace => backend.place(kernel);
  const trial = new Trial(await openPort(attachment.shards[0]!.port), page_bytes);
  const seen = new Map<AccessSite, Pick<SiteCoverage, 'effect' | 'address'>>();
  try {
    const [vcpu, ...others] = await Promise.all([
      VcpuAccessor.start('vcpu-load', place),
      ...sites.filter((site) => !isGuestSite(site)).map((site) => startBeside(site, attachment.layout)),
    ]);
    for (const [page, site] of sites.entries()) {
      const access: RealAccessor['access'] = isGuestSite(site)
        ? (request) => vcpu.accessFrom(site, request)
        : (request) => others.find((other) => other.site === site)!.accessor.access(request);
      const found = await trial.run(access, site, page);
      if (found) seen.set(site, found);
    }
    await Promise.all([vcpu.stop(), ...others.map(({ accessor }) => accessor.stop())]);
  } finally {
    trial.close();
    await attachment.close();
  }
  const declared = attachment.coverage;
  const rows = declared.map((row): SiteCoverage => {
    const found = seen.get(row.site);
    return found ? { ...row, ...found, evidence: 'measured' } : row;
  });
  return { declared, seen: rows };
}

/** An accessor that is not a vCPU. */
async function startBeside(
  site: AccessSite,
  layout: MemoryLayout,
): Promise<{ readonly site: AccessSite; readonly accessor: RealAccessor }> {
  const accessor =
    site === 'external-mapping'
      ? foreignMapping(layout, DEADLINE_MS)
      : await startAccessor(site as NativeSite, layout);
  return { site, accessor };
}

/** Serves faults in this thread, so that each is seen before it is answered. */
class Trial {
  readonly #port: FaultPort;
  readonly #contents: Contents;
  readonly #faults = new FaultBatch(16);
  readonly #rows = new ResolutionBatch(1);

  constructor(port: FaultPort, page_bytes: number) {
    this.#port = port;
    this.#contents = new Contents(page_bytes);
  }

  /** The effect of the missing page; undefined if it did not become clear in time. */
  async run(
    access: RealAccessor['access'],
    site: AccessSite,
    page: PageIndex,
  ): Promise<Pick<SiteCoverage, 'effect' | 'address'> | undefined> {
    const store = site === 'vcpu-store' || site === 'vmm-store';
    const given = this.#contents.page(page).subarray(0, 8);
    let result: RealResult | 'failed' | undefined;
    void access(store ? { page, bytes: given } : { page, length: 8 })
      .then((value) => (result = value))
      .catch(() => (result = 'failed'));
    let first: { effect: Effect; page: PageIndex } | undefined;
    for (const end = performance.now() + DEADLINE_MS; result === undefined && performance.now() < end;) {
      const fault = this.#serve();
      first ??= fault;
      await eventLoopTurn();
    }
    if (result === undefined || result === 'failed') return undefined;
    if (!result.ok) {
      if (first) return undefined;
      return { effect: result.injected ? 'injects' : 'errors', address: 'none' };
    }
    if (!first) return { effect: 'unmediated', address: 'none' };
    // A fault on another page, or an access that read anything but the contents, is no known effect.
    const right = store || Buffer.compare(result.bytes, given.subarray(0, result.bytes.length)) === 0;
    return right && first.page === page ? { effect: first.effect, address: 'exact' } : undefined;
  }

  /** Resolves the pending faults and returns the first. */
  #serve(): { effect: Effect; page: PageIndex } | undefined {
    this.#faults.clear();
    this.#port.take(this.#faults, 'none', 0);
    for (let row = 0; row < this.#faults.count; row++) {
      const page = this.#faults.page[row]!;
      this.#port.staging.set(this.#contents.page(page));
      this.#rows.clear();
      this.#rows.push({ verb: 'copy', pages: { first: page, count: 1 }, from: 0 });
      do this.#port.resolve(this.#rows);
      while (this.#rows.outcome[0] === OUTCOME.again);
    }
    if (this.#faults.count === 0) return undefined;
    return { effect: this.#faults.vcpu[0] === NOBODY ? 'blocks' : 'exits', page: this.#faults.page[0]! };
  }

  close(): void {
    this.#port.close();
  }
}
