import { type AccessSite, type Effect } from '../api/access.js';
import { type Attachment, type Backend } from '../api/backend.js';
import { requirements, type Requirement, type Requirements, unmet } from '../api/capability.js';
import { type MemoryKind } from '../api/layout.js';
import { NATIVE_SITES, type NativeSite, startAccessor } from '../accessors/index.js';
import { composite } from '../backends/composite/index.js';
import { guestMemfd } from '../backends/guest-memfd/index.js';
import { effectsOf } from '../backends/kvm-exit/coverage.js';
import { kvmExit } from '../backends/kvm-exit/index.js';
import { userfaultfd, type UserfaultfdBackendOptions } from '../backends/userfaultfd/index.js';
import { type RealSubject } from '../conformance/index.js';
import { type KvmBackend, type KvmOptions } from '../kvm/index.js';
import { sharedGuestMemfd } from '../kvm/probe.js';
import { hasTwoStagePaging, Kvm } from '../linux/index.js';
import { GuestMachine } from './guest-machine.js';
import { ARM64_SITES } from './arm64-access.js';
import { type GuestSite } from './messages.js';
import { GUEST_SITES, type GuestPlace, VcpuAccessor } from './vcpu-accessor.js';

/** The backends that are part of a VM, in the forms that can be tested. */
export const GUEST_BACKENDS = ['kvm-exit', 'memslot-hole', 'composite', 'guest-memfd'] as const;
export type GuestBackendName = (typeof GUEST_BACKENDS)[number];

export interface GuestBackendChoice {
  /** Or `userfaultfd`, which is not part of a VM, but whose memory can be a guest's. */
  readonly backend: GuestBackendName | 'userfaultfd';
  /** Default: the kind that the backend is made for. */
  readonly memory?: MemoryKind | undefined;
  /** Options of a `userfaultfd`. */
  readonly userfaultfd?: UserfaultfdBackendOptions | undefined;
}

/** vCPUs, each with an exit handler; more than the suite makes accesses at once. */
const VCPUS = 16;

function make({ backend, userfaultfd: of }: GuestBackendChoice, place: KvmOptions): KvmBackend | Backend {
  const options: KvmOptions = VERIFIES_SLOTS ? place : { ...place, verifySlots: false };
  switch (backend) {
    case 'kvm-exit':
      return kvmExit({ ...options, strategy: 'vacated-slot' });
    case 'memslot-hole':
      return kvmExit({ ...options, strategy: 'memslot-hole' });
    case 'composite':
      return composite({ ...options, strategy: 'vacated-slot' });
    case 'guest-memfd':
      return guestMemfd(options);
    case 'userfaultfd':
      return userfaultfd(of);
  }
}

export const memoryOf = ({ backend, memory }: GuestBackendChoice): MemoryKind =>
  memory ?? (backend === 'guest-memfd' ? 'guest-memfd' : 'anonymous');

/** What this host lacks to run guests over a backend. Never throws. */
export function probeGuest(choice: GuestBackendChoice): Requirements {
  const known = process.arch === 'x64' || process.arch === 'arm64';
  const cpu: Requirement = {
    what: 'an x86-64 or arm64 processor',
    met: known,
    found: process.arch,
    remedy: known ? '' : 'the code of these guests is for x86-64 and arm64',
  };
  const { list } = make(choice, { vm: 0, vcpus: 1 }).probe();
  return requirements([cpu, ...list, ...moreOf(choice, list[0]!.met)]);
}

/** What guests over a backend need in addition to the backend's own requirements. */
function moreOf({ backend }: GuestBackendChoice, hasKvm: boolean): readonly Requirement[] {
  if (backend === 'userfaultfd') return [aMachine()];
  const vacates = backend === 'kvm-exit' || backend === 'composite';
  return vacates && hasKvm ? [sharedGuestMemfd()] : [];
}

function aMachine(): Requirement {
  const what = 'a virtual machine';
  try {
    using kvm = Kvm.open();
    return { what, met: true, found: `runs of ${kvm.run_bytes} bytes`, remedy: '' };
  } catch (error) {
    return unmet(what, error, 'run on Linux with KVM');
  }
}

/**
 * A backend with a virtual machine for each attachment, whose vCPUs access its memory on command. The machine
 * is closed with the attachment.
 */
export class GuestBackend implements Backend {
  readonly name: string;
  readonly #choice: GuestBackendChoice;
  #inner: KvmBackend | Backend | undefined;
  #attachment: Attachment | undefined;
  #machine: GuestMachine | undefined;

  constructor(choice: GuestBackendChoice) {
    this.#choice = choice;
    this.name = choice.backend;
  }

  probe(): Requirements {
    return probeGuest(this.#choice);
  }

  /** Errors: those of the backend, and those of {@link GuestMachine}. */
  async attach(...[layout, states]: Parameters<Backend['attach']>): Promise<Attachment> {
    const machine = new GuestMachine(layout, VCPUS);
    try {
      this.#inner = make(this.#choice, { vm: machine.vm.fd, vcpus: VCPUS });
      const attachment = await this.#inner.attach(layout, states);
      if (!isKvm(this.#inner)) machine.showMemory(attachment.layout);
      const close = attachment.close.bind(attachment);
      attachment.close = async () => {
        try {
          await close();
        } finally {
          machine[Symbol.dispose]();
        }
      };
      this.#machine = machine;
      return (this.#attachment = attachment);
    } catch (error) {
      machine[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Where a vCPU accesses the memory of the last attachment. `kernel`: how KVM itself is made to access it.
   */
  place(kernel: GuestPlace['kernel']): GuestPlace {
    const inner = this.#inner!;
    const { coverage, layout } = this.#attachment!;
    return {
      machine: this.#machine!,
      exitHandlerToken: (vcpu) => (isKvm(inner) ? inner.exitHandlerToken(vcpu) : undefined),
      effectOf: (site) => coverage.find((row) => row.site === site)?.effect ?? 'unmediated',
      publish: async (page) => {
        if (isKvm(inner)) await inner.publish([layout.gpaRangeOf({ first: page, count: 1 })]);
      },
      kernel,
    };
  }
}

const isKvm = (backend: KvmBackend | Backend): backend is KvmBackend => 'exitHandlerToken' in backend;

/** The access sites that vCPUs can exercise on this architecture. */
export const CODED: readonly GuestSite[] = process.arch === 'arm64' ? ARM64_SITES : GUEST_SITES;

/** Whether a vCPU, or KVM on its behalf, makes the access. */
export const isGuestSite = (site: AccessSite): site is GuestSite =>
  (CODED as readonly AccessSite[]).includes(site);

/**
 * Whether accesses through the VMM's mapping are not intercepted. There the kernel's copies from that
 * mapping, which otherwise represent KVM's own accesses, find other memory than KVM does.
 */
const stopsOnlyVcpus = ({ backend }: GuestBackendChoice): boolean =>
  backend === 'kvm-exit' || backend === 'memslot-hole';

/** Sites of the VMM and of other processes, and of the kernel where no vCPU can make KVM access memory. */
export const besideVcpus = (choice: GuestBackendChoice): readonly NativeSite[] =>
  NATIVE_SITES.filter((site) => !(stopsOnlyVcpus(choice) && site === 'kernel-copy') && !isGuestSite(site));

/**
 * Without slot verification nothing detects that another process holds the file of a vacated slot: then no
 * process may be started while the suite runs.
 */
const VERIFIES_SLOTS = process.arch === 'x64';

/** Sites whose accessor waits in an exit handler, if it waits. */
const IN_HANDLERS: readonly AccessSite[] = ['vcpu-load', 'vcpu-store', 'vcpu-atomic', 'vcpu-fetch'];

/**
 * Sites where a failed access is not reported: it ends the process, or the guest takes a fault of its own.
 */
function silentSites({ backend }: GuestBackendChoice): readonly AccessSite[] {
  if (!stopsOnlyVcpus({ backend })) return ['vmm-load', 'vmm-store'];
  const strategy = backend === 'memslot-hole' ? 'memslot-hole' : 'vacated-slot';
  const effects = Object.entries(effectsOf(strategy, hasTwoStagePaging())) as [AccessSite, Effect][];
  const injected = effects.filter(([, effect]) => effect === 'injects').map(([site]) => site);
  return ['vmm-load', 'vmm-store', ...injected];
}

/**
 * Subjects for the conformance suite: a backend on this host's KVM, whose memory real vCPUs, KVM itself, the
 * VMM's mapping and another process access. For holes in the memslots KVM emulates a guest's access piece by
 * piece, so that it is not atomic; atomic accesses are left out there, since the backend does not declare to
 * serve them.
 * Preconditions: {@link probeGuest} lacks nothing. Stages come one after the other.
 */
export function guestSubject(
  choice: GuestBackendChoice & { readonly backend: GuestBackendName },
): RealSubject {
  const hole = choice.backend === 'memslot-hole';
  const kernel = hole ? 'translate' : 'string-io';
  let current = new GuestBackend(choice);
  const silent = silentSites(choice);
  const sites = [...CODED, ...besideVcpus(choice)].filter(
    (site: AccessSite) =>
      (!hole || site !== 'vcpu-atomic') && (hole || VERIFIES_SLOTS || site !== 'external-vm-readv'),
  );
  return {
    name: choice.backend,
    deterministic: false,
    memory: memoryOf(choice),
    page_bytes: 4096,
    sites,
    // String I/O to a hole is emulated as MMIO; KVM_TRANSLATE only reads.
    readOnly: hole ? ['kernel-copy'] : [],
    backend: () => (current = new GuestBackend(choice)),
    accessor: (site, { layout }) =>
      isGuestSite(site)
        ? VcpuAccessor.start(site, () => current.place(kernel))
        : startAccessor(site as NativeSite, layout),
    mayFail: sites.filter((site) => !silent.includes(site)),
    killable: sites.filter((site) => site === 'external-vm-readv' || IN_HANDLERS.includes(site)),
  };
}
