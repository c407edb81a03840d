/**
 * Where guest memory is reached from. Each class is split into sites, because mechanisms differ
 * between, say, a vCPU's load and its instruction fetch.
 *
 * - `vcpu`: stage-2 (or shadow) translation of a running vCPU.
 * - `kernel`: KVM itself, with or without a vCPU: GIC and ITS tables, page-table walks, paravirtual writes.
 * - `vmm`: the VMM's own mapping of the memory.
 * - `external`: another process, vhost, a device backend.
 */
export type AccessClass = 'vcpu' | 'kernel' | 'vmm' | 'external';

export const ACCESS_CLASSES = ['vcpu', 'kernel', 'vmm', 'external'] as const satisfies readonly AccessClass[];

/** Every access site and the class it belongs to. The order is the wire order of a {@link FaultBatch}. */
export const ACCESS_SITES = {
  'vcpu-load': 'vcpu',
  'vcpu-store': 'vcpu',
  'vcpu-atomic': 'vcpu',
  'vcpu-fetch': 'vcpu',
  'vcpu-walk': 'vcpu', // the vCPU's own page-table walk
  'kernel-copy': 'kernel', // kvm_read_guest() and kvm_write_guest(): a copy through userspace_addr
  'kernel-cached-pfn': 'kernel', // a page pinned or looked up once and used later
  'kernel-visibility': 'kernel', // "is this GFN in a memslot?": reads nothing
  'vmm-load': 'vmm',
  'vmm-store': 'vmm',
  'vmm-syscall': 'vmm', // the memory as the buffer of a system call of the VMM's
  'external-mapping': 'external', // another process's own mapping of the same memory
  'external-vm-readv': 'external', // process_vm_readv() and ptrace-like access from elsewhere
  'external-vhost': 'external', // a kernel thread or device backend using the VMM's address space
} as const satisfies Record<string, AccessClass>;

export type AccessSite = keyof typeof ACCESS_SITES;

export const SITE_NAMES = Object.keys(ACCESS_SITES) as readonly AccessSite[];

/** The class a site belongs to. */
export const classOf = (site: AccessSite): AccessClass => ACCESS_SITES[site];

/**
 * What a missing page does to an access.
 *
 * - `blocks`: the accessor waits and a fault is delivered.
 * - `exits`: KVM_RUN returns with the fault.
 * - `errors`: the access fails at once (EFAULT, SIGBUS), and no fault is delivered. Of `external-mapping`:
 *   mmap(2) itself fails.
 * - `injects`: the guest sees an abort.
 * - `unmediated`: no fault is delivered; the accessor reads zeros or stale data.
 */
export type Effect = 'blocks' | 'exits' | 'errors' | 'injects' | 'unmediated';

/** What one backend does at one site, on one kind of memory. */
export interface SiteCoverage {
  readonly site: AccessSite;
  readonly effect: Effect;
  /** The unit in which pages go missing there, in bytes. */
  readonly granule_bytes: number;
  /** Whether the notification says which page. */
  readonly address: 'exact' | 'none';
  /** Whether this was tried on this host or only follows from documentation. */
  readonly evidence: 'measured' | 'declared';
}

/** One row a site; a site without a row is not claimed at all and counts as `unmediated`. */
export type Coverage = readonly SiteCoverage[];

/** What a backend does at a site; one without a row is not claimed at all, which counts as `unmediated`. */
export const effectAt = (coverage: Coverage, site: AccessSite): Effect =>
  coverage.find((row) => row.site === site)?.effect ?? 'unmediated';

/** The sites that `coverage` leaves unmediated. Visibility checks never count: they read nothing. */
export const unmediatedSites = (coverage: Coverage): readonly AccessSite[] =>
  SITE_NAMES.filter((site) => site !== 'kernel-visibility' && effectAt(coverage, site) === 'unmediated');

/**
 * The sites of the given classes at which an access to a missing page goes wrong in the VMM or unreported: it
 * reads what is there, or fails at once, and no resolver gets a fault. Two never count: visibility checks,
 * which read nothing, and `external-mapping` where it `errors`, because there the mapping itself fails and no
 * access is made. Where the guest sees an abort (`injects`: a walk through page tables on hosts that shadow
 * them) the VMM has to keep present what is walked; the coverage says so.
 */
export function coverageGaps(coverage: Coverage, needs: readonly AccessClass[]): readonly AccessSite[] {
  return SITE_NAMES.filter((site) => {
    if (site === 'kernel-visibility' || !needs.includes(classOf(site))) return false;
    const effect = effectAt(coverage, site);
    if (site === 'external-mapping' && effect === 'errors') return false;
    return effect === 'unmediated' || effect === 'errors';
  });
}
