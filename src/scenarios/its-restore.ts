import { type Answer, type Ask, type Gpa, type Program } from '../api/index.js';
import { planMemoryOf, planRestore, stateOf, type Status, type Vgic } from '../arm64/index.js';
import { ScenarioRun, PAGE_BYTES } from './scenario-run.js';
import { GIC_PAGES, programmedGic, savedGicMemory, tableAt } from './saved-gic.js';
import { type CaseOutcome, type CaseResult, type CaseSeen, type Scenario } from './scenario.js';
import { type UapiInUse } from './uapis.js';

const EFAULT = 14;
const VMM = { kind: 'vmm' } as const;
/** More tries than there are pages that a restore touches. */
const MOST_TRIES = 40;

/** One KVM_DEV_ARM_ITS_RESTORE_TABLES, its accesses made by the kernel of a run. */
class Restore {
  /** Pages that were not there when they were asked for. */
  missed = 0;
  /** Where it failed. */
  failedAt: bigint | undefined;
  readonly #scenarioRun: ScenarioRun;

  constructor(run: ScenarioRun) {
    this.#scenarioRun = run;
  }

  /** Undefined where it never ends. */
  async run(program: Program<Status>): Promise<Status | undefined> {
    this.failedAt = undefined;
    for (let step = program.next(); ;) {
      if (step.done) return step.value;
      const answer = await this.#answer(step.value);
      if (!answer) return undefined;
      step = program.next(answer);
    }
  }

  async #answer(ask: Ask): Promise<Answer | undefined> {
    switch (ask.ask) {
      case 'hint':
        return { answer: 'done' };
      case 'visible':
        return { answer: 'visible', visible: this.#scenarioRun.pager.layout.regionAt(ask.gpa) !== undefined };
      case 'read':
        return this.#access(ask.page);
      case 'write':
        return this.#access(ask.gpa, ask.bytes);
    }
  }

  async #access(address: Gpa, bytes?: Uint8Array): Promise<Answer | undefined> {
    const { page, offset } = this.#scenarioRun.pageOf(address);
    if (!this.#scenarioRun.pager.memory!.isPresent(this.#scenarioRun.range(page))) this.missed++;
    this.#scenarioRun.note({
      actor: { kind: 'kvm' },
      kind: 'table-accessed',
      table: tableAt(address),
      write: bytes !== undefined,
      page,
    });
    const access = await this.#scenarioRun.touch({
      site: 'kernel-copy',
      page,
      offset,
      ...(bytes ? { bytes } : { length: PAGE_BYTES }),
    });
    if (access.state === 'done') return bytes ? { answer: 'done' } : { answer: 'bytes', bytes: access.bytes };
    if (access.state !== 'errored') return undefined;
    this.failedAt ??= address;
    return { answer: 'fault', errno: EFAULT };
  }
}

/** The LPIs as they should be, and how many of them are pending. */
async function reference(uapi: UapiInUse): Promise<ReturnType<typeof stateOf>> {
  return onGicMemory(uapi, async (run) => {
    await run.pager.ensure([run.range(0, GIC_PAGES)]);
    const gic = programmedGic();
    await new Restore(run).run(gic.restoreTables(0));
    return stateOf(gic);
  });
}

async function onGicMemory<T>(uapi: UapiInUse, body: (run: ScenarioRun) => Promise<T>): Promise<T> {
  const run = await ScenarioRun.open(uapi, { pages: GIC_PAGES, contents: savedGicMemory() });
  try {
    return await body(run);
  } finally {
    await run.close();
  }
}

type State = ReturnType<typeof stateOf>;
const PENDING_COLUMN = 2;
const pendingOf = ({ lpis }: State): number => lpis.filter((lpi) => lpi[PENDING_COLUMN] === 1).length;
const equal = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** The tables are restored while their pages are still on the source; an error is answered by bringing the page and trying again. */
async function duringPostCopy(run: ScenarioRun, wanted: State): Promise<CaseResult> {
  const gic = programmedGic();
  const restore = new Restore(run);
  let status = await restore.run(gic.restoreTables(0));
  const first = status;
  const firstFailure = restore.failedAt;
  let tries = 1;
  for (; status === -EFAULT && restore.failedAt !== undefined && tries < MOST_TRIES; tries++) {
    const { page } = run.pageOf(restore.failedAt as Gpa);
    run.note({ actor: VMM, kind: 'restore-retried', page });
    await run.pager.ensure([run.range(page)]);
    status = await restore.run(gic.restoreTables(0));
  }
  return restoreResult(run, { gic, status, first, firstFailure, tries, missed: restore.missed, wanted });
}

interface Seen {
  readonly gic: Vgic;
  readonly status: Status | undefined;
  readonly first: Status | undefined;
  readonly firstFailure: bigint | undefined;
  readonly tries: number;
  readonly missed: number;
  readonly wanted: State;
}

function restoreResult(
  run: ScenarioRun,
  { gic, status, first, firstFailure, tries, missed, wanted }: Seen,
): CaseResult {
  const state = stateOf(gic);
  const lost = pendingOf(wanted) - pendingOf(state);
  const figures = {
    tries,
    missedPages: missed,
    lpis: state.lpis.length,
    lpisWanted: wanted.lpis.length,
    pendingLost: lost,
    pendingWanted: pendingOf(wanted),
  };
  const is = (outcome: CaseOutcome, seen: CaseSeen): CaseResult =>
    run.result('during-post-copy', outcome, seen, figures);
  if (status === undefined) return is('hangs', { kind: 'ioctl-hangs' });
  if (first === 0 && equal(state, wanted)) return is('works', { kind: 'ioctl-waits' });
  if (first === 0) return is('silent', { kind: 'ioctl-incomplete' });
  const table = firstFailure === undefined ? undefined : tableAt(firstFailure);
  if (status === 0 && lost > 0) return is('fails', { kind: 'ioctl-loses-pending', table });
  return is('fails', { kind: 'ioctl-fails', errno: -(status as number), table });
}

/** The very program is planned first, and what it will touch is brought and held; then it runs. */
async function afterPlan(run: ScenarioRun, wanted: State): Promise<CaseResult> {
  const plan = await planRestore(programmedGic(), planMemoryOf(run.pager));
  const [pages, rounds] = [plan.touched.length, plan.rounds.length];
  run.note({ actor: VMM, kind: 'restore-planned', pages, rounds });
  const gic = programmedGic();
  const restore = new Restore(run);
  const status = await restore.run(gic.restoreTables(0));
  plan.release();
  const figures = { plannedPages: pages, rounds, missedPages: restore.missed };
  const right = status === 0 && equal(stateOf(gic), wanted) && restore.missed === 0;
  if (right) return run.result('after-plan', 'works', { kind: 'planned' }, figures);
  const outcome = status === undefined ? 'hangs' : status === 0 ? 'silent' : 'fails';
  return run.result('after-plan', outcome, { kind: 'planned-in-vain', status: String(status) }, figures);
}

/** The seed of the thread. */
export const itsRestore: Scenario = {
  name: 'its-restore',
  title: 'GIC and ITS restore during post-copy',
  description:
    'KVM_DEV_ARM_ITS_RESTORE_TABLES walks collection, device and translation tables and consumes pending bits, all of them in guest memory that has not arrived. No one instruments it: its accesses are ordinary ones of the kernel.',
  source: 'Oliver Upton, ZUrj8IK__59kHixL@linux.dev, 7 November 2023',
  cases: {
    'during-post-copy': 'restored while the tables are missing; where that fails, page by page again',
    'after-plan': 'planned first: what the restore will touch is brought and held, and nothing else',
  },
  async run(uapi) {
    const wanted = await reference(uapi);
    return [
      await onGicMemory(uapi, (run) => duringPostCopy(run, wanted)),
      await onGicMemory(uapi, (run) => afterPlan(run, wanted)),
    ];
  },
};
