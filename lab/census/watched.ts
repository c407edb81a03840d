/** What a function does with guest memory. */
export type Operation = 'read' | 'write' | 'pin' | 'look up';

/** A function of the kernel that the census watches. */
export interface Watched {
  readonly name: string;
  readonly operation: Operation;
  /** What a probe fetches at its entry: how the place in guest memory is given. */
  readonly fetch: Readonly<Partial<Record<Place, string>>>;
}

/** Guest-physical address, frame number, offset in the frame, bytes; or an address in the process. */
type Place = 'gpa' | 'gfn' | 'offset' | 'length' | 'hva';

const watch =
  (operation: Operation, fetch: Watched['fetch']) =>
  (name: string): Watched => ({ name, operation, fetch });

/** Second argument a frame, third the buffer, then offset and length. */
const page = { gfn: '$arg2:x64', offset: '$arg4:u64', length: '$arg5:u64' };
const bytes = { gpa: '$arg2:x64', length: '$arg4:u64' };
/** `struct gfn_to_hva_cache`: generation, gpa, … */
const cached = { gpa: '+8($arg2):x64', length: '$arg4:u64' };
const frame = { gfn: '$arg2:x64' };

/**
 * The ways to guest memory of Linux 6.1 to 7.3, on arm64 and x86. A kernel has those of its version; what it
 * lacks is passed over. Source: include/linux/kvm_host.h, virt/kvm/kvm_main.c, include/linux/mm.h.
 */
export const WATCHED: readonly Watched[] = [
  ...['kvm_read_guest', 'kvm_vcpu_read_guest', 'kvm_vcpu_read_guest_atomic'].map(watch('read', bytes)),
  ...['kvm_read_guest_page', 'kvm_vcpu_read_guest_page'].map(watch('read', page)),
  watch('read', cached)('kvm_read_guest_cached'),
  watch('read', { gpa: '+8($arg2):x64', offset: '$arg4:u64', length: '$arg5:u64' })(
    'kvm_read_guest_offset_cached',
  ),
  ...['kvm_write_guest', 'kvm_vcpu_write_guest'].map(watch('write', bytes)),
  ...['kvm_write_guest_page', 'kvm_vcpu_write_guest_page'].map(watch('write', page)),
  watch('write', cached)('kvm_write_guest_cached'),
  watch('write', { gpa: '+8($arg2):x64', offset: '$arg4:u64', length: '$arg5:u64' })(
    'kvm_write_guest_offset_cached',
  ),
  watch('write', { gpa: '$arg2:x64', length: '$arg3:u64' })('kvm_clear_guest'),
  ...[
    ...['gfn_to_memslot', 'kvm_vcpu_gfn_to_memslot', 'kvm_is_visible_gfn', 'kvm_vcpu_is_visible_gfn'],
    ...['gfn_to_hva', 'gfn_to_hva_prot', 'kvm_vcpu_gfn_to_hva', 'kvm_vcpu_gfn_to_hva_prot'],
    ...['gfn_to_hva_memslot', 'gfn_to_hva_memslot_prot', 'kvm_host_page_size'],
  ].map(watch('look up', frame)),
  watch('look up', { gpa: '$arg3:x64', length: '$arg4:u64' })('kvm_gfn_to_hva_cache_init'),
  ...[
    ...['__kvm_faultin_pfn', '__gfn_to_pfn_memslot', 'gfn_to_pfn_memslot', 'gfn_to_pfn_memslot_atomic'],
    ...['gfn_to_pfn', 'gfn_to_pfn_prot', 'gfn_to_page', '__gfn_to_page', 'kvm_vcpu_map', '__kvm_vcpu_map'],
    ...['gfn_to_page_many_atomic', 'kvm_prefetch_pages'],
  ].map(watch('pin', frame)),
  watch('pin', { gfn: '$arg3:x64' })('kvm_gmem_get_pfn'),
  watch('pin', { gpa: '$arg2:x64', length: '$arg3:u64' })('kvm_gpc_activate'),
  // `struct gfn_to_pfn_cache`: generation, gpa, …
  watch('pin', { gpa: '+8($arg1):x64', length: '$arg2:u64' })('kvm_gpc_refresh'),
  ...[
    ...['get_user_pages', 'get_user_pages_unlocked', 'get_user_pages_fast', 'get_user_pages_fast_only'],
    ...['pin_user_pages', 'pin_user_pages_unlocked', 'pin_user_pages_fast'],
  ].map(watch('pin', { hva: '$arg1:x64' })),
  ...['get_user_pages_remote', 'pin_user_pages_remote', 'fixup_user_fault', '__access_remote_vm'].map(
    watch('pin', { hva: '$arg2:x64' }),
  ),
];

/** Where a page that is missing is waited for. */
export const WAIT = 'handle_userfault';

/** `struct vm_fault` begins with vma, gfp_mask, pgoff, address, real_address; flags follow. */
export const WAIT_FETCH = { address: '+24($arg1):x64', flags: '+40($arg1):x32' } as const;

/** Of `enum fault_flag`. */
export const FAULT_FLAG_WRITE = 1;

/** Frames of a stack that belong to the way to memory and are no site of their own, besides those watched. */
const PASSAGES = new Set([
  ...['__kvm_read_guest_page', '__kvm_write_guest_page', '__kvm_gfn_to_hva_cache_init', 'hva_to_pfn'],
  ...['kvm_follow_pfn', 'kvm_resolve_pfn', 'hva_to_pfn_slow', 'hva_to_pfn_retry', '__kvm_gpc_refresh'],
  ...['__kvm_gpc_activate', '__gfn_to_hva_many', '__gup_longterm_locked', '__get_user_pages'],
  ...['__get_user_pages_locked', 'internal_get_user_pages_fast', 'gup_fast_fallback', 'faultin_page'],
  ...['__is_visible_gfn_locked', 'is_visible_gfn_locked'],
]);

/** Whether a function reads or writes guest memory, or is where that waits. */
export const isTransfer = (name: string): boolean =>
  name === WAIT || WATCHED.some((each) => each.name === name && ['read', 'write'].includes(each.operation));

const NAMES = new Set(WATCHED.map(({ name }) => name));

/** A compiler's copy of a function is that function. */
export const plainName = (name: string): string => name.replace(/(\.(isra|part|constprop|cold)\.?\d*)+$/, '');

export const isPassage = (name: string): boolean =>
  NAMES.has(plainName(name)) || PASSAGES.has(plainName(name));

/** How the caller of a function is found at its entry. */
const CALLER = { arm64: '%lr:symbol', x64: '+0($stack):symbol' } as const;

/**
 * The probe definitions for what a kernel offers to be probed. Source: Documentation/trace/kprobetrace.rst.
 */
export function probesFor(
  available: ReadonlySet<string>,
  architecture: keyof typeof CALLER,
  group: string,
): { readonly name: string; readonly definition: string }[] {
  const caller = `caller=${CALLER[architecture]}`;
  const wanted = [...WATCHED, { name: WAIT, fetch: WAIT_FETCH }].filter(({ name }) => available.has(name));
  return wanted.map(({ name, fetch }) => {
    const fetched = Object.entries(fetch).map(([field, from]) => `${field}=${from}`);
    return { name, definition: ['p:' + `${group}/${name}`, name, ...fetched, caller].join(' ') };
  });
}
