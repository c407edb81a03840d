import { type AccessSite } from '../api/index.js';
import { type ModelAccess } from '../backends/memory/index.js';
import { gotOf, type Got, GRADE_OF, SAYS } from './outcome.js';
import { PAGE_BYTES, patterned, Play } from './play.js';
import { type CaseVerdict, type Grade, type Scenario, worstOf } from './scenario.js';
import { type JudgedUapi } from './uapis.js';

const PAGES = 4;
/** Who waits for a page: the guest, and KVM itself. */
const WAITERS: readonly { readonly who: string; readonly site: AccessSite; readonly page: number }[] = [
  { who: 'the guest', site: 'vcpu-load', page: 1 },
  { who: 'KVM', site: 'kernel-copy', page: 2 },
];

const wanted = (page: number): Uint8Array =>
  patterned(PAGES).subarray(page * PAGE_BYTES, page * PAGE_BYTES + 8);

/** What became of one waiter. */
interface Ended {
  readonly who: string;
  readonly got: Got | 'exited';
}

const GRADES_HERE: Readonly<Record<Ended['got'], Grade>> = { ...GRADE_OF, exited: 'needs-vmm' };
const SAYS_HERE: Readonly<Record<Ended['got'], string>> = {
  ...SAYS,
  right: 'is served',
  exited: 'is out of KVM_RUN, in the hands of the VMM',
};

const summary = (ended: readonly Ended[]): { readonly grade: Grade; readonly says: string } => ({
  grade: worstOf(ended.map(({ got }) => ({ grade: GRADES_HERE[got] }))),
  says: ended.map(({ who, got }) => `${who} ${SAYS_HERE[got]}`).join('; '),
});

/** Steps an access until its vCPU is out in the VMM, whose threads are all busy elsewhere. */
function enter(access: ModelAccess): ModelAccess {
  for (let step = 0; step < 4 && access.state === 'running'; step++) access.step();
  return access;
}

/** No thread of the VMM runs: what does a handler in another process learn by itself? */
async function alone(uapi: JudgedUapi): Promise<CaseVerdict> {
  const play = await Play.open(uapi, { pages: PAGES });
  try {
    const ended: Ended[] = [];
    for (const { who, site, page } of WAITERS) {
      const access = enter(play.access({ site, page }));
      if (access.state !== 'exited') await play.run(access);
      ended.push({ who, got: access.state === 'exited' ? 'exited' : gotOf(access, wanted(page)) });
    }
    const { grade, says } = summary(ended);
    const reached = ended.filter(({ got }) => got === 'right').length;
    return play.verdict('faults-reach-it', grade, says, { reached, of: ended.length });
  } finally {
    await play.close();
  }
}

/** The handler has read the faults and dies over them. */
async function dying(
  uapi: JudgedUapi,
  name: string,
  then: (play: Play) => Promise<void>,
): Promise<CaseVerdict> {
  const play = await Play.open(uapi, { pages: PAGES });
  try {
    for (const { page } of WAITERS) play.source.hold(page);
    const accesses: ModelAccess[] = [];
    for (const { site, page } of WAITERS) accesses.push(await play.touch({ site, page }));
    play.note('handler', 'dies over the faults it has read');
    await then(play);
    await play.quiet();
    const ended = WAITERS.map(({ who, page }, at): Ended => {
      const got = gotOf(accesses[at]!, wanted(page));
      // A vCPU that is out waits in its VMM, which notices that its handler is gone.
      return { who, got: got === 'waits' && accesses[at]!.exits > 0 ? 'exited' : got };
    });
    return play.verdict(name, summary(ended).grade, summary(ended).says);
  } finally {
    await play.close();
  }
}

const descriptorDies = (play: Play): Promise<void> => {
  play.kernel.orphan();
  return Promise.resolve();
};

/** Another handler takes the descriptor that the VMM has kept; what the first had read is not said again. */
async function heir(uapi: JudgedUapi): Promise<CaseVerdict> {
  const silent = await dying(uapi, 'taken-over', (play) => play.takeOver());
  const waking = await dying(uapi, 'taken-over', async (play) => {
    await play.takeOver();
    play.note('handler', 'wakes everybody, so that those who wait fault again');
    play.kernel.queue.wake({ first: 0, count: PAGES });
  });
  if (silent.grade === 'works' || waking.grade !== 'works') return silent.grade === 'works' ? silent : waking;
  return {
    ...waking,
    grade: 'needs-vmm',
    says: 'the faults that the first had read are not said again: all is served once the second has woken everybody',
  };
}

export const handlerProcess: Scenario = {
  name: 'handler-process',
  title: 'multi-process handler',
  plays:
    "The handler is another process than the VMM. First, no thread of the VMM's runs while faults come. Then the handler dies with faults in its hands: with the only descriptor, or with one that the VMM has kept and hands to another.",
  source:
    'AWS (Firecracker) and Paolo Bonzini, in the thread of November 2023; Firecracker PR 3506, open since 2023',
  cases: {
    'faults-reach-it': "faults of the guest's and of KVM's own, with no help of the VMM's",
    'dies-with-descriptor': 'the kernel closes the descriptor of the handler that died',
    'taken-over': 'the VMM has kept the descriptor, and another handler takes it over',
  },
  async play(uapi) {
    return [await alone(uapi), await dying(uapi, 'dies-with-descriptor', descriptorDies), await heir(uapi)];
  },
};
