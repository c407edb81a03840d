import { type AccessSite } from '../api/index.js';
import { Play } from './play.js';
import { type CaseVerdict, type Scenario } from './scenario.js';
import { type JudgedUapi } from './uapis.js';

const PAGES = 4;
const PAGE = 2;
const EHWPOISON = 133;

/** A page whose contents were lost on the source to a memory error. */
async function poisoned(uapi: JudgedUapi, name: string, site: AccessSite): Promise<CaseVerdict> {
  const play = await Play.open(uapi, { pages: PAGES });
  try {
    const has = play.pager.supports.verbs.includes('poison');
    // Without a way to say so, all that is left is never to answer.
    if (has) await play.pager.poison([play.range(PAGE)]);
    else play.source.hold(PAGE);
    play.note('vmm', has ? 'poisons' : 'has no way to say that it is lost:', PAGE);
    const access = await play.touch({ site, page: PAGE });
    switch (access.state) {
      case 'errored':
        return has
          ? play.verdict(
              name,
              'works',
              access.errno === EHWPOISON
                ? 'the access meets poison, as on the source'
                : 'the access fails with EFAULT, as on poison',
            )
          : play.verdict(name, 'fails', 'the access fails with EFAULT, as any missing page does');
      case 'injected':
        return play.verdict(name, 'fails', 'the guest sees an abort for every missing page');
      case 'done':
        return play.verdict(name, 'silent', 'the access reads zeros, and nobody is told');
      default:
        return access.exits > 0
          ? play.verdict(
              name,
              'needs-vmm',
              'the vCPU is out with the address: the VMM injects the machine check itself',
            )
          : play.verdict(name, 'hangs', 'nothing can be said to who waits: it waits for ever');
    }
  } finally {
    await play.close();
  }
}

export const poison: Scenario = {
  name: 'poison',
  title: 'poison emulation',
  plays:
    'A page was lost to a memory error on the source host. Whoever accesses it here must meet that error, and neither zeros nor an endless wait.',
  source: "Google's KVM demand paging, in the thread of November 2023; UFFDIO_POISON, Linux 6.6",
  cases: {
    guest: 'a vCPU reads it',
    'kvm-itself': 'KVM reads it for itself',
    syscall: "it is the buffer of a system call of the VMM's",
  },
  async play(uapi) {
    return [
      await poisoned(uapi, 'guest', 'vcpu-load'),
      await poisoned(uapi, 'kvm-itself', 'kernel-copy'),
      await poisoned(uapi, 'syscall', 'vmm-syscall'),
    ];
  },
};
