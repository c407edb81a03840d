import { refused, type Requirement, type Requirements, requirements, unmet } from '../api/capability.js';
import { aThread, Kvm, KVM_CAP, userfaultfdSupport } from '../linux/index.js';
import { type Mediation } from './paged-memory.js';
import { rehearse } from './rehearsal.js';

/** The resolver's, that of the slots, and one that KVM creates when a VM runs first. */
const THREADS = 3;

/** What this host lacks for paging by KVM's exits. Creates a VM and closes it. Never throws. */
export function probeKvm(mediation: Mediation): Requirements {
  const list: Requirement[] = [
    tried('/dev/kvm', () => `API of KVM, ${capability(KVM_CAP.NR_MEMSLOTS)} memslots`),
  ];
  if (!list[0]!.met) return requirements(list);
  if (mediation === 'guest-memfd') list.push(sharedGuestMemfd());
  if (mediation !== 'none')
    list.push(tried('a userfaultfd', () => `features 0x${userfaultfdSupport().mask.toString(16)}`));
  if (list.every(({ met }) => met)) list.push(systemCalls(mediation), aThread(THREADS));
  return requirements(list);
}

function systemCalls(mediation: Mediation): Requirement {
  const what = 'the system calls';
  try {
    rehearse(mediation !== 'none');
    return { what, met: true, found: 'none is refused', remedy: '' };
  } catch (error) {
    return refused(what, error);
  }
}

function capability(number: number): number {
  using kvm = Kvm.open();
  return kvm.check(number);
}

/** What vacated slots, and memory in a guest_memfd, need. Never throws. */
export function sharedGuestMemfd(): Requirement {
  const what = 'guest_memfd that can be mapped';
  const remedy = 'Linux 6.18 or newer';
  try {
    using kvm = Kvm.open();
    using vm = kvm.createVm();
    const met = vm.sharesGuestMemfd;
    return { what, met, found: `flags ${vm.guestMemfdFlags}`, remedy: met ? '' : remedy };
  } catch (error) {
    return unmet(what, error, remedy);
  }
}

function tried(what: string, look: () => string): Requirement {
  try {
    return { what, met: true, found: look(), remedy: '' };
  } catch (error) {
    return unmet(what, error, 'run on Linux with KVM');
  }
}
