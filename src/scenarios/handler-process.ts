import { type AccessSite } from '../api/index.js';
import { type ModelAccess } from '../backends/memory/index.js';
import { gotOf, OUTCOME_OF } from './outcome.js';
import { PAGE_BYTES, patterned, ScenarioRun } from './scenario-run.js';
import { type CaseResult, type Scenario, type WaiterGot, worstOf } from './scenario.js';
import { type UapiInUse } from './uapis.js';

const PAGES = 4;
/** What waits for a page: the guest, and KVM itself. */
const WAITERS = [
  { site: 'vcpu-load', page: 1 },
  { site: 'kernel-copy', page: 2 },
] as const satisfies readonly { readonly site: AccessSite; readonly page: number }[];

const wanted = (page: number): Uint8Array =>
  patterned(PAGES).subarray(page * PAGE_BYTES, page * PAGE_BYTES + 8);

function resultOf(run: ScenarioRun, name: string, got: readonly WaiterGot[], figures = {}): CaseResult {
  const [guest, kvm] = got;
  const outcome = worstOf(got.map((each) => OUTCOME_OF[each]));
  return run.result(name, outcome, { kind: 'waiters', guest: guest!, kvm: kvm! }, figures);
}

const HANDLER = { kind: 'handler' } as const;

/** Steps an access until its vCPU is out in the VMM, whose threads are all busy elsewhere. */
function enter(access: ModelAccess): ModelAccess {
  for (let step = 0; step < 4 && access.state === 'running'; step++) access.step();
  return access;
}

/** No thread of the VMM runs: what does a handler in another process learn by itself? */
async function alone(uapi: UapiInUse): Promise<CaseResult> {
  const run = await ScenarioRun.open(uapi, { pages: PAGES });
  try {
    const got: WaiterGot[] = [];
    for (const { site, page } of WAITERS) {
      const access = enter(run.access({ site, page }));
      if (access.state !== 'exited') await run.settled(access);
      got.push(access.state === 'exited' ? 'exited' : gotOf(access, wanted(page)));
    }
    const reached = got.filter((each) => each === 'right').length;
    return resultOf(run, 'faults-reach-it', got, { reached, of: got.length });
  } finally {
    await run.close();
  }
}

/** The handler has read the faults and dies over them. */
async function dying(
  uapi: UapiInUse,
  name: string,
  then: (run: ScenarioRun) => Promise<void>,
): Promise<CaseResult> {
  const run = await ScenarioRun.open(uapi, { pages: PAGES });
  try {
    for (const { page } of WAITERS) run.source.hold(page);
    const accesses: ModelAccess[] = [];
    for (const { site, page } of WAITERS) accesses.push(await run.touch({ site, page }));
    run.note({ actor: HANDLER, kind: 'handler-dies' });
    await then(run);
    await run.quiet();
    const got = WAITERS.map(({ page }, at): WaiterGot => {
      const each = gotOf(accesses[at]!, wanted(page));
      // A vCPU that is out waits in its VMM, which notices that its handler is gone.
      return each === 'waits' && accesses[at]!.exits > 0 ? 'exited' : each;
    });
    return resultOf(run, name, got);
  } finally {
    await run.close();
  }
}

const descriptorDies = (run: ScenarioRun): Promise<void> => {
  run.kernel.orphan();
  return Promise.resolve();
};

/** Another handler takes the descriptor that the VMM has kept; what the first had read is not said again. */
async function takenOver(uapi: UapiInUse): Promise<CaseResult> {
  const silent = await dying(uapi, 'taken-over', (run) => run.takeOver());
  const waking = await dying(uapi, 'taken-over', async (run) => {
    await run.takeOver();
    run.note({ actor: HANDLER, kind: 'waiters-woken' });
    run.kernel.queue.wake({ first: 0, count: PAGES });
  });
  if (silent.outcome === 'works' || waking.outcome !== 'works')
    return silent.outcome === 'works' ? silent : waking;
  return { ...waking, outcome: 'needs-vmm', seen: { kind: 'served-after-wake' } };
}

export const handlerProcess: Scenario = {
  name: 'handler-process',
  title: 'multi-process handler',
  description:
    "The handler is another process than the VMM. First, no thread of the VMM's runs while faults come. Then the handler dies with faults in its hands: with the only descriptor, or with one that the VMM has kept and hands to another.",
  source:
    'AWS (Firecracker) and Paolo Bonzini, in the thread of November 2023; Firecracker PR 3506, open since 2023',
  cases: {
    'faults-reach-it': "faults of the guest's and of KVM's own, with no help of the VMM's",
    'dies-with-descriptor': 'the kernel closes the descriptor of the handler that died',
    'taken-over': 'the VMM has kept the descriptor, and another handler takes it over',
  },
  async run(uapi) {
    return [
      await alone(uapi),
      await dying(uapi, 'dies-with-descriptor', descriptorDies),
      await takenOver(uapi),
    ];
  },
};
