import { type AccessSite } from '../api/index.js';
import { gotOf, OUTCOME_OF, same } from './outcome.js';
import { PAGE_BYTES, patterned, Play } from './play.js';
import { type CaseResult, type Scenario } from './scenario.js';
import { type JudgedUapi } from './uapis.js';

/** One backing page: 2 MiB are played, 1 GiB is meant. */
const PAGES = 512;
const GIB_BYTES = 2 ** 30;
const PAGE = 77;

/** The backing page is there, as zeros, from the first byte on that anybody puts into it. */
async function backed(uapi: JudgedUapi): Promise<Play> {
  const play = await Play.open(uapi, { pages: PAGES });
  for (let page = 0; page < PAGES; page++) play.kernel.memory.reach(page);
  play.note({ actor: { kind: 'kernel' }, kind: 'backing-page-allocated' });
  return play;
}

/** Whether contents can come to 4 KiB inside of a backing page that is there. */
async function comes(play: Play, page: number): Promise<boolean> {
  await play.pager.ensure([play.range(page)]).catch(() => {});
  const source = patterned(PAGES).subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  return same(play.look(page) ?? new Uint8Array(0), source);
}

async function small(uapi: JudgedUapi, name: string, site: AccessSite): Promise<CaseResult> {
  const play = await backed(uapi);
  try {
    const before = play.source.read_bytes;
    const access = await play.touch({ site, page: PAGE });
    const got = gotOf(access, patterned(PAGES).subarray(PAGE * PAGE_BYTES, PAGE * PAGE_BYTES + 8));
    const fetched_bytes = play.source.read_bytes - before;
    if (got === 'right')
      return play.result(name, 'works', { kind: 'small-page' }, { waitsForBytes: fetched_bytes });
    if (await comes(play, PAGE)) return play.result(name, OUTCOME_OF[got], { kind: 'access', got });
    play.note({ actor: { kind: 'pager' }, kind: 'backing-page-refuses' });
    return play.result(name, 'cannot', { kind: 'whole-page' }, { waitsForBytes: GIB_BYTES });
  } finally {
    await play.close();
  }
}

/** Everything has come: is it one mapping again? */
async function collapse(uapi: JudgedUapi): Promise<CaseResult> {
  const name = 'collapse';
  const play = await backed(uapi);
  try {
    if (!(await comes(play, PAGE))) return play.result(name, 'works', { kind: 'never-split' });
    await play.pager.ensure([play.range(0, PAGES)]);
    if (play.trace.some(({ kind }) => kind === 'mapped-as-block'))
      return play.result(name, 'works', { kind: 'collapsed' });
    return play.turnOff()
      ? play.result(name, 'needs-vmm', { kind: 'collapses-at-end' })
      : play.result(name, 'cannot', { kind: 'stays-small' });
  } finally {
    await play.close();
  }
}

export const hugePage: Scenario = {
  name: 'huge-page',
  title: '1 GiB HugeTLB paged at 4 KiB',
  plays:
    'Guest memory is one huge page, which exists as a whole as soon as 4 KiB of it do. The guest, then KVM, reads 4 KiB that have not come; in the end everything has, and should be one mapping again. Played with a backing page of 2 MiB.',
  source: 'David Matlack, part (e) and his complaint about userfaultfd, November 2023; HugeTLB HGM, rejected',
  cases: {
    guest: 'a vCPU reads 4 KiB',
    'kvm-itself': 'KVM reads 4 KiB for itself',
    collapse: 'everything has come',
  },
  async play(uapi) {
    return [
      await small(uapi, 'guest', 'vcpu-load'),
      await small(uapi, 'kvm-itself', 'kernel-copy'),
      await collapse(uapi),
    ];
  },
};
