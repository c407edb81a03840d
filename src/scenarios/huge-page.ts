import { type AccessSite } from '../api/index.js';
import { gotOf, OUTCOME_OF, same } from './outcome.js';
import { PAGE_BYTES, patterned, ScenarioRun } from './scenario-run.js';
import { type CaseResult, type Scenario } from './scenario.js';
import { type UapiInUse } from './uapis.js';

/** One backing page: 2 MiB are run, 1 GiB is meant. */
const PAGES = 512;
const GIB_BYTES = 2 ** 30;
const PAGE = 77;

/** The backing page is there, as zeros, from its first byte on. */
async function backed(uapi: UapiInUse): Promise<ScenarioRun> {
  const run = await ScenarioRun.open(uapi, { pages: PAGES });
  for (let page = 0; page < PAGES; page++) run.kernel.memory.reach(page);
  run.note({ actor: { kind: 'kernel' }, kind: 'backing-page-allocated' });
  return run;
}

/** Whether contents can come to 4 KiB inside of a backing page that is there. */
async function comes(run: ScenarioRun, page: number): Promise<boolean> {
  await run.pager.ensure([run.range(page)]).catch(() => {});
  const source = patterned(PAGES).subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  return same(run.look(page) ?? new Uint8Array(0), source);
}

async function small(uapi: UapiInUse, name: string, site: AccessSite): Promise<CaseResult> {
  const run = await backed(uapi);
  try {
    const before = run.source.read_bytes;
    const access = await run.touch({ site, page: PAGE });
    const got = gotOf(access, patterned(PAGES).subarray(PAGE * PAGE_BYTES, PAGE * PAGE_BYTES + 8));
    const fetched_bytes = run.source.read_bytes - before;
    if (got === 'right')
      return run.result(name, 'works', { kind: 'small-page' }, { waitsForBytes: fetched_bytes });
    if (await comes(run, PAGE)) return run.result(name, OUTCOME_OF[got], { kind: 'access', got });
    run.note({ actor: { kind: 'pager' }, kind: 'backing-page-refuses' });
    return run.result(name, 'cannot', { kind: 'whole-page' }, { waitsForBytes: GIB_BYTES });
  } finally {
    await run.close();
  }
}

/** Everything has come: is it one mapping again? */
async function collapse(uapi: UapiInUse): Promise<CaseResult> {
  const name = 'collapse';
  const run = await backed(uapi);
  try {
    if (!(await comes(run, PAGE))) return run.result(name, 'works', { kind: 'never-split' });
    await run.pager.ensure([run.range(0, PAGES)]);
    if (run.trace.some(({ kind }) => kind === 'mapped-as-block'))
      return run.result(name, 'works', { kind: 'collapsed' });
    return run.turnOff()
      ? run.result(name, 'needs-vmm', { kind: 'collapses-at-end' })
      : run.result(name, 'cannot', { kind: 'stays-small' });
  } finally {
    await run.close();
  }
}

export const hugePage: Scenario = {
  name: 'huge-page',
  title: '1 GiB HugeTLB paged at 4 KiB',
  description:
    'Guest memory is one huge page, which exists as a whole as soon as 4 KiB of it do. The guest, then KVM, reads 4 KiB that have not come; in the end everything has, and should be one mapping again. Run with a backing page of 2 MiB.',
  source: 'David Matlack, part (e) and his complaint about userfaultfd, November 2023; HugeTLB HGM, rejected',
  cases: {
    guest: 'a vCPU reads 4 KiB',
    'kvm-itself': 'KVM reads 4 KiB for itself',
    collapse: 'everything has come',
  },
  async run(uapi) {
    return [
      await small(uapi, 'guest', 'vcpu-load'),
      await small(uapi, 'kvm-itself', 'kernel-copy'),
      await collapse(uapi),
    ];
  },
};
