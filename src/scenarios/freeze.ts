import { type AccessSite } from '../api/index.js';
import { gotOf, same } from './outcome.js';
import { PAGE_BYTES, patterned, ScenarioRun } from './scenario-run.js';
import { type CaseResult, type Scenario } from './scenario.js';
import { type UapiInUse } from './uapis.js';

const PAGES = 4;
const PAGE = 1;
const STAMP = Uint8Array.of(0xee, 1, 0xee, 2, 0xee, 3, 0xee, 4);

/** Pages are present and used; then the last state is taken, and no write may change them any more, until it is called off. */
async function frozen(uapi: UapiInUse, name: string, site: AccessSite): Promise<CaseResult> {
  const run = await ScenarioRun.open(uapi, { pages: PAGES });
  try {
    await run.pager.ensure([run.range(0, PAGES)]);
    await run.touch({ site, page: PAGE });
    if (run.pager.supports.freeze !== 'full') return run.result(name, 'cannot', { kind: 'no-freeze' });
    await run.pager.freeze([run.range(0, PAGES)]);
    const actor = { kind: 'vmm' } as const;
    run.note({ actor, kind: 'guest-frozen' });
    const write = run.access({ site, page: PAGE, bytes: STAMP });
    await run.settled(write);
    const during = gotOf(write, STAMP);
    const source = patterned(PAGES).subarray(PAGE * PAGE_BYTES, (PAGE + 1) * PAGE_BYTES);
    const changed = !same(frameOf(run), source);
    run.note({ actor, kind: 'frozen-page-compared', changed, page: PAGE });
    if (changed) return run.result(name, 'silent', { kind: 'frozen-write-passes' });
    if (during === 'errno' || during === 'abort')
      return run.result(name, 'fails', { kind: 'frozen-write-fails' });
    await run.pager.thaw([run.range(0, PAGES)]);
    await run.quiet();
    const after = gotOf(write, STAMP);
    const rest = same(frameOf(run).subarray(STAMP.length), source.subarray(STAMP.length));
    if (after === 'right' && rest) return run.result(name, 'works', { kind: 'frozen-write-resumes' });
    return run.result(name, after === 'waits' ? 'hangs' : 'silent', { kind: 'thawed-write', got: after });
  } finally {
    await run.close();
  }
}

/** What is in the page's frame, however it is reached. */
const frameOf = (run: ScenarioRun): Uint8Array => run.look(PAGE) ?? new Uint8Array(PAGE_BYTES);

export const freeze: Scenario = {
  name: 'freeze',
  title: 'freeze during blackout',
  description:
    'The last state is taken for the switch to another host: a write to a present page must not go through, and if the switch is called off nothing may be lost. Contents stay where they are; that tells it from making pages missing.',
  source: 'Sean Christopherson and David Matlack, in the thread of November 2023',
  cases: {
    guest: 'a vCPU stores',
    'kvm-itself': 'KVM writes for itself: a steal time, an ITS table',
    vhost: 'vhost writes a used entry',
    vmm: 'a thread of the VMM writes',
  },
  async run(uapi) {
    return [
      await frozen(uapi, 'guest', 'vcpu-store'),
      await frozen(uapi, 'kvm-itself', 'kernel-copy'),
      await frozen(uapi, 'vhost', 'external-vhost'),
      await frozen(uapi, 'vmm', 'vmm-store'),
    ];
  },
};
