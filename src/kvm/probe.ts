import { type Requirement, type Requirements, requirements, unmet } from '../api/capability.js';
import { GUEST_MEMFD_FLAG, Kvm, KVM_CAP, userfaultfdSupport } from '../linux/index.js';
import { type Mediation } from './paged-memory.js';

/** What this host lacks to page by KVM's exits. Makes a VM and drops it. Never throws. */
export function probeKvm(mediation: Mediation): Requirements {
  const list: Requirement[] = [
    tried('/dev/kvm', () => `API of KVM, ${capability(KVM_CAP.NR_MEMSLOTS)} memslots`),
  ];
  if (!list[0]!.met) return requirements(list);
  if (mediation === 'guest-memfd') list.push(guestMemfd());
  if (mediation !== 'none')
    list.push(tried('a userfaultfd', () => `features 0x${userfaultfdSupport().mask.toString(16)}`));
  return requirements(list);
}

function capability(number: number): number {
  using kvm = Kvm.open();
  return kvm.check(number);
}

function guestMemfd(): Requirement {
  const wanted = GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED;
  const flags = capability(KVM_CAP.GUEST_MEMFD) && capability(KVM_CAP.GUEST_MEMFD_FLAGS);
  const met = (flags & wanted) === wanted;
  return {
    what: 'guest_memfd that can be mapped',
    met,
    found: `flags ${flags}`,
    remedy: met ? '' : 'Linux 6.18 or newer',
  };
}

function tried(what: string, look: () => string): Requirement {
  try {
    return { what, met: true, found: look(), remedy: '' };
  } catch (error) {
    return unmet(what, error, 'run on Linux with KVM');
  }
}
