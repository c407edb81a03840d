import { gotOf } from './outcome.js';
import { PAGE_BYTES, patterned, Play } from './play.js';
import { type CaseResult, type Scenario } from './scenario.js';
import { type JudgedUapi } from './uapis.js';

const PAGES = 4;
const PAGE = 2;
const ZEROS = new Uint8Array(8);

type When = 'not-come' | 'come' | 'under-way';

/** The guest gives a page back; post-copy goes on to its end; then the guest uses the page again. */
async function givenBack(uapi: JudgedUapi, when: When): Promise<CaseResult> {
  const play = await Play.open(uapi, { pages: PAGES });
  try {
    let first;
    if (when === 'come') await play.pager.ensure([play.range(PAGE)]);
    if (when === 'under-way') {
      play.source.hold(PAGE);
      first = await play.touch({ site: 'vcpu-load', page: PAGE });
      play.note({ actor: { kind: 'source' }, kind: 'source-slow', page: PAGE });
    }
    play.note({ actor: { kind: 'guest' }, kind: 'gives-back', page: PAGE });
    const discarding = await play.run(play.discard(PAGE));
    if (!discarding.ended) return play.result(when, 'hangs', { kind: 'discard-hangs' });
    play.source.release(PAGE);
    await Promise.race([play.pager.prefetch().catch(() => {}), play.quiet()]);
    await play.quiet();
    if (first && !first.ended) return play.result(when, 'hangs', { kind: 'earlier-access-hangs' });
    const access = await play.touch({ site: 'vcpu-load', page: PAGE });
    const got = gotOf(access, ZEROS);
    if (got === 'right') return play.result(when, 'works', { kind: 'discarded-reads-zeros' });
    if (got === 'waits') return play.result(when, 'hangs', { kind: 'reuse-hangs' });
    if (got === 'errno' || got === 'abort') return play.result(when, 'fails', { kind: 'reuse-fails' });
    const old =
      gotOf(access, patterned(PAGES).subarray(PAGE * PAGE_BYTES, PAGE * PAGE_BYTES + 8)) === 'right';
    return play.result(when, 'silent', { kind: old ? 'old-contents' : 'other-contents' });
  } finally {
    await play.close();
  }
}

export const balloon: Scenario = {
  name: 'balloon',
  title: 'balloon during post-copy',
  plays:
    'The guest gives a page back through its balloon, and a thread of the VMM drops it from the mapping, while post-copy is under way. The page must read as zeros from then on, though the source still has its old contents.',
  source: 'userfaultfd(2), UFFD_EVENT_REMOVE; Cloud Hypervisor #8756, #8771',
  cases: {
    'not-come': 'before the page came',
    come: 'after the page came',
    'under-way': 'while the page is on its way and a vCPU waits for it',
  },
  async play(uapi) {
    return [
      await givenBack(uapi, 'not-come'),
      await givenBack(uapi, 'come'),
      await givenBack(uapi, 'under-way'),
    ];
  },
};
