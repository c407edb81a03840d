import { gotOf } from './outcome.js';
import { PAGE_BYTES, patterned, ScenarioRun } from './scenario-run.js';
import { type CaseResult, type Scenario } from './scenario.js';
import { type UapiInUse } from './uapis.js';

const PAGES = 4;
const PAGE = 2;
const ZEROS = new Uint8Array(8);

type When = 'not-come' | 'come' | 'under-way';

/** The guest gives a page back; post-copy goes on to its end; then the guest uses the page again. */
async function givenBack(uapi: UapiInUse, when: When): Promise<CaseResult> {
  const run = await ScenarioRun.open(uapi, { pages: PAGES });
  try {
    let first;
    if (when === 'come') await run.pager.ensure([run.range(PAGE)]);
    if (when === 'under-way') {
      run.source.hold(PAGE);
      first = await run.touch({ site: 'vcpu-load', page: PAGE });
      run.note({ actor: { kind: 'source' }, kind: 'source-slow', page: PAGE });
    }
    run.note({ actor: { kind: 'guest' }, kind: 'gives-back', page: PAGE });
    const discarding = await run.settled(run.discard(PAGE));
    if (!discarding.ended) return run.result(when, 'hangs', { kind: 'discard-hangs' });
    run.source.release(PAGE);
    await Promise.race([run.pager.prefetch().catch(() => {}), run.quiet()]);
    await run.quiet();
    if (first && !first.ended) return run.result(when, 'hangs', { kind: 'earlier-access-hangs' });
    const access = await run.touch({ site: 'vcpu-load', page: PAGE });
    const got = gotOf(access, ZEROS);
    if (got === 'right') return run.result(when, 'works', { kind: 'discarded-reads-zeros' });
    if (got === 'waits') return run.result(when, 'hangs', { kind: 'reuse-hangs' });
    if (got === 'errno' || got === 'abort') return run.result(when, 'fails', { kind: 'reuse-fails' });
    const old =
      gotOf(access, patterned(PAGES).subarray(PAGE * PAGE_BYTES, PAGE * PAGE_BYTES + 8)) === 'right';
    return run.result(when, 'silent', { kind: old ? 'old-contents' : 'other-contents' });
  } finally {
    await run.close();
  }
}

export const balloon: Scenario = {
  name: 'balloon',
  title: 'balloon during post-copy',
  description:
    'The guest gives a page back through its balloon, and a thread of the VMM drops it from the mapping, while post-copy is under way. The page must read as zeros from then on, though the source still has its old contents.',
  source: 'userfaultfd(2), UFFD_EVENT_REMOVE; Cloud Hypervisor #8756, #8771',
  cases: {
    'not-come': 'before the page came',
    come: 'after the page came',
    'under-way': 'while the page is on its way and a vCPU waits for it',
  },
  async run(uapi) {
    return [
      await givenBack(uapi, 'not-come'),
      await givenBack(uapi, 'come'),
      await givenBack(uapi, 'under-way'),
    ];
  },
};
