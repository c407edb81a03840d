import { type AccessSite } from '../api/index.js';
import { Play } from './play.js';
import { type CaseResult, type Scenario } from './scenario.js';
import { type JudgedUapi } from './uapis.js';

const PAGES = 4;
const PAGE = 2;

/** A page whose contents were lost on the source to a memory error. */
async function poisoned(uapi: JudgedUapi, name: string, site: AccessSite): Promise<CaseResult> {
  const play = await Play.open(uapi, { pages: PAGES });
  try {
    const has = play.pager.supports.verbs.includes('poison');
    // Without a way to say so, all that is left is never to answer.
    if (has) await play.pager.poison([play.range(PAGE)]);
    else play.source.hold(PAGE);
    play.note({
      actor: { kind: 'vmm' },
      kind: has ? 'lost-page-poisoned' : 'lost-page-unsayable',
      page: PAGE,
    });
    const access = await play.touch({ site, page: PAGE });
    switch (access.state) {
      case 'errored':
        return has
          ? play.result(name, 'works', { kind: 'poison-met', errno: access.errno! })
          : play.result(name, 'fails', { kind: 'fails-as-missing' });
      case 'injected':
        return play.result(name, 'fails', { kind: 'aborts-as-missing' });
      case 'done':
        return play.result(name, 'silent', { kind: 'poison-reads-zeros' });
      default:
        return access.exits > 0
          ? play.result(name, 'needs-vmm', { kind: 'vcpu-out' })
          : play.result(name, 'hangs', { kind: 'poison-waits' });
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
