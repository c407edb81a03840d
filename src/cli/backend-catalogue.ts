import { type Backend, type Coverage, type MemoryKind, type Requirements, SITE_NAMES } from '../api/index.js';
import { type Accessor, NATIVE_SITES, type NativeSite, startAccessor } from '../accessors/index.js';
import { composite } from '../backends/composite/index.js';
import { guestMemfd } from '../backends/guest-memfd/index.js';
import { kvmExit, type KvmOptions } from '../backends/kvm-exit/index.js';
import { memoryBackend } from '../backends/memory/index.js';
import {
  measureCoverage,
  userfaultfd,
  type UserfaultfdBackendOptions,
} from '../backends/userfaultfd/index.js';
import { Kvm, pageSize, raw } from '../linux/index.js';
import { type AccessEnd, MARK, measureThroughPager } from './pager-coverage.js';

/** A backend in one of its forms, and how to find out what it covers here. */
export interface CatalogueEntry {
  readonly name: string;
  /** In a few words. */
  readonly about: string;
  /** Whether no other may be measured meanwhile: a process started then would hold on to the guest's memory file. */
  readonly alone: boolean;
  probe(): Requirements;
  /** Tries each site that can be tried; rows that could not stay `declared`. Precondition: the requirements are met. */
  measure(): Promise<Coverage>;
}

/** Every backend of this version, the real ones first. */
export const CATALOGUE: readonly CatalogueEntry[] = [
  userfaultfdEntry('userfaultfd', 'private anonymous memory', {}, 'anonymous'),
  userfaultfdEntry('uffd shmem', 'userfaultfd on a memory file', {}, 'shmem'),
  userfaultfdEntry('uffd user', 'userfaultfd with UFFD_USER_MODE_ONLY', { userModeOnly: true }, 'anonymous'),
  userfaultfdEntry('uffd sigbus', 'userfaultfd with UFFD_FEATURE_SIGBUS', { sigbus: true }, 'anonymous'),
  kvmEntry('kvm-exit', 'exits of KVM_RUN on a vacated slot', kvmExit, 'anonymous'),
  kvmEntry('composite', 'kvm-exit for vCPUs, userfaultfd for the rest', composite, 'anonymous'),
  kvmEntry('guest-memfd', 'the same, with memory in a guest_memfd', guestMemfd, 'guest-memfd'),
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
    measure: () =>
      measureCoverage({
        backend: options,
        memory,
        sites: NATIVE_SITES,
        start: (site, layout) => startAccessor(site as NativeSite, layout),
      }),
  };
}

/** Sites of the VMM and of others: what KVM does for itself takes a guest to try. */
const BESIDE_KVM = NATIVE_SITES.filter((site) => site !== 'kernel-copy');
/** Out of the way of what a VM without memory has: above 4 GiB. */
const GUEST_BASE = 0x1_0000_0000n;

function kvmEntry(
  name: string,
  about: string,
  make: (options: KvmOptions) => Backend,
  memory: MemoryKind,
): CatalogueEntry {
  return {
    name,
    about,
    alone: true,
    probe: () => make({ vm: 0, vcpus: 1 }).probe(),
    measure: async () => {
      using kvm = Kvm.open();
      using vm = kvm.createVm();
      if (process.arch === 'x64') setTaskStateSegment(vm.fd);
      const backend = make({ vm: vm.fd, vcpus: 1 });
      const sites = BESIDE_KVM;
      return await measureThroughPager({
        backend,
        memory,
        pageSize: pageSize(),
        base: GUEST_BASE,
        sites,
        access,
      });
    },
  };
}

const KVM_SET_TSS_ADDR = 0xae47;
const TSS_ADDRESS = 0xfffb_d000;

/** What an x86 host without unrestricted guests needs before a vCPU runs. */
const setTaskStateSegment = (vm: number): void => void raw.ioctl(vm, KVM_SET_TSS_ADDR, TSS_ADDRESS);

const access: Parameters<typeof measureThroughPager>[0]['access'] = async (site, page, { layout }) => {
  const accessor: Accessor = await startAccessor(site as NativeSite, layout);
  try {
    const store = site === 'vmm-store';
    const result = await accessor.access(store ? { page, bytes: Uint8Array.of(MARK) } : { page, length: 1 });
    if (!result.ok) return 'errored';
    return store ? MARK : result.bytes[0]!;
  } finally {
    await accessor.stop();
  }
};

async function measureModel(): Promise<Coverage> {
  const backend = memoryBackend();
  const sites = SITE_NAMES.filter((site) => site !== 'kernel-visibility');
  return measureThroughPager({
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
}
