import { type AccessSite } from '../api/index.js';
import { ScenarioRun } from './scenario-run.js';
import { type CaseResult, type Scenario } from './scenario.js';
import { type UapiInUse } from './uapis.js';

const PAGES = 4;
const PAGE = 2;

/** A page whose contents were lost on the source to a memory error. */
async function poisoned(uapi: UapiInUse, name: string, site: AccessSite): Promise<CaseResult> {
  const run = await ScenarioRun.open(uapi, { pages: PAGES });
  try {
    const has = run.pager.supports.verbs.includes('poison');
    // Without a way to say so, all that is left is never to answer.
    if (has) await run.pager.poison([run.range(PAGE)]);
    else run.source.hold(PAGE);
    run.note({
      actor: { kind: 'vmm' },
      kind: has ? 'lost-page-poisoned' : 'lost-page-unsayable',
      page: PAGE,
    });
    const access = await run.touch({ site, page: PAGE });
    switch (access.state) {
      case 'errored':
        return has
          ? run.result(name, 'works', { kind: 'poison-met', errno: access.errno! })
          : run.result(name, 'fails', { kind: 'fails-as-missing' });
      case 'injected':
        return run.result(name, 'fails', { kind: 'aborts-as-missing' });
      case 'done':
        return run.result(name, 'silent', { kind: 'poison-reads-zeros' });
      default:
        return access.exits > 0
          ? run.result(name, 'needs-vmm', { kind: 'vcpu-out' })
          : run.result(name, 'hangs', { kind: 'poison-waits' });
    }
  } finally {
    await run.close();
  }
}

export const poison: Scenario = {
  name: 'poison',
  title: 'poison emulation',
  description:
    'A page was lost to a memory error on the source host. An access to it here must meet that error, and neither zeros nor an endless wait.',
  source: "Google's KVM demand paging, in the thread of November 2023; UFFDIO_POISON, Linux 6.6",
  cases: {
    guest: 'a vCPU reads it',
    'kvm-itself': 'KVM reads it for itself',
    syscall: "it is the buffer of a system call of the VMM's",
  },
  async run(uapi) {
    return [
      await poisoned(uapi, 'guest', 'vcpu-load'),
      await poisoned(uapi, 'kvm-itself', 'kernel-copy'),
      await poisoned(uapi, 'syscall', 'vmm-syscall'),
    ];
  },
};
