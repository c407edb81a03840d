import { type ModelAccess } from '../backends/memory/index.js';
import { gotOf, OUTCOME_OF } from './outcome.js';
import { PAGE_BYTES, patterned, ScenarioRun } from './scenario-run.js';
import { PUBLISHED_RATES } from './published-rates.js';
import { type CaseOutcome, type CaseResult, type CaseSeen, type Scenario, worstOf } from './scenario.js';
import { type UapiInUse } from './uapis.js';

const VCPUS = 256;

/** How the vCPUs were stopped, before the handler served them. */
type Stopped = 'one-queue' | 'exits' | 'own-queues' | 'not';

/** All vCPUs fault before the handler runs; then it serves them. `pageOf`: which page a vCPU wants. */
async function manyFault(
  uapi: UapiInUse,
  name: string,
  pageOf: (vcpu: number) => number,
): Promise<CaseResult> {
  const run = await ScenarioRun.open(uapi, { pages: VCPUS });
  try {
    const accesses = Array.from({ length: VCPUS }, (_, vcpu) =>
      run.access({ site: 'vcpu-load', page: pageOf(vcpu), vcpu }),
    );
    for (const access of accesses) access.step();
    const stopped = howStopped(run, accesses);
    const inOneQueue = stopped === 'one-queue' ? run.kernel.queue.waiting : 0;
    run.note({ actor: { kind: 'vcpus' }, kind: 'all-faulted', vcpus: VCPUS, waitInOneQueue: inOneQueue });
    await Promise.all(accesses.map((access) => run.settled(access)));
    const source = patterned(VCPUS);
    const got = accesses.map((access, vcpu) => {
      const at = pageOf(vcpu) * PAGE_BYTES;
      return gotOf(access, source.subarray(at, at + 8));
    });
    const wrong = got.find((each) => each !== 'right');
    const figures = {
      vcpus: VCPUS,
      waitInOneQueue: inOneQueue,
      fetchedPages: run.source.read_bytes / PAGE_BYTES,
    };
    if (wrong) {
      const outcome = worstOf(got.map((each) => OUTCOME_OF[each]));
      return run.result(name, outcome, { kind: 'vcpu-access', got: wrong }, figures);
    }
    if (name === 'one-page') return run.result(name, 'works', { kind: 'one-fetch' }, figures);
    return run.result(name, ...scaling(stopped, figures));
  } finally {
    await run.close();
  }
}

function howStopped(run: ScenarioRun, accesses: readonly ModelAccess[]): Stopped {
  if (accesses.every(({ state }) => state === 'exited')) return 'exits';
  if (!accesses.every(({ state }) => state === 'blocked')) return 'not';
  const [first] = run.kernel.sites['vcpu-load'] ?? [];
  return first?.queue === 'own' ? 'own-queues' : 'one-queue';
}

/** What the published curves say of so many vCPUs. */
function scaling(
  stopped: Stopped,
  figures: Record<string, number>,
): readonly [CaseOutcome, CaseSeen, Record<string, number>] {
  const { userfaultfd, exits } = PUBLISHED_RATES;
  const curve = { 'one-queue': userfaultfd, exits, 'own-queues': undefined, not: undefined }[stopped];
  if (!curve) return ['works', { kind: 'own-queues' }, figures];
  const of = (vcpus: number): number => curve.find((point) => point.vcpus === vcpus)!.kiloPagesPerSecond;
  const [one, all] = [of(1), of(VCPUS)];
  const rates = { ...figures, publishedKiloPagesPerSecondOf1: one, publishedKiloPagesPerSecondOf256: all };
  return stopped === 'one-queue'
    ? ['slow', { kind: 'one-queue' }, rates]
    : ['works', { kind: 'exits' }, rates];
}

export const manyVcpus: Scenario = {
  name: 'many-vcpus',
  title: 'hundreds of vCPUs on one notification queue',
  description: `${VCPUS} vCPUs fault before the handler has run once; then it serves them. How fast that can be is not run: it is what was published of one queue, and of exits.`,
  source: 'Anish Moorthy, rates of demand_paging_test with up to 256 vCPUs, 2023 and 2024',
  cases: {
    'pages-of-their-own': 'each vCPU wants a page of its own',
    'one-page': 'all want the same page',
  },
  async run(uapi) {
    return [
      await manyFault(uapi, 'pages-of-their-own', (vcpu) => vcpu),
      await manyFault(uapi, 'one-page', () => 7),
    ];
  },
};
