import { type AccessSite, type MemoryKind } from '../api/index.js';
import { gotOf, OUTCOME_OF, same } from './outcome.js';
import { PAGE_BYTES, patterned, ScenarioRun } from './scenario-run.js';
import { type CaseResult, type Scenario, worstOf } from './scenario.js';
import { type UapiInUse } from './uapis.js';

const PAGES = 8;
/** Where the descriptors of the ring are, and where its used part is. */
const DESCRIPTORS = 2;
const USED = 5;
const USED_OFFSET = 1024;
const STAMP = Uint8Array.of(0xee, 1, 0xee, 2, 0xee, 3, 0xee, 4);

/** A device backend reads a descriptor and writes a used entry, both on pages that have not come. */
async function ring(
  uapi: UapiInUse,
  name: string,
  site: AccessSite,
  memory: MemoryKind | undefined,
): Promise<CaseResult> {
  const run = await ScenarioRun.open(uapi, { pages: PAGES, ...(memory && { memory }) });
  try {
    const wanted = patterned(PAGES).subarray(DESCRIPTORS * PAGE_BYTES, DESCRIPTORS * PAGE_BYTES + 16);
    const actor = { kind: 'vhost' } as const;
    run.note({ actor, kind: 'ring-accessed', write: false, page: DESCRIPTORS });
    const read = gotOf(await run.touch({ site, page: DESCRIPTORS, length: 16 }), wanted);
    run.note({ actor, kind: 'ring-accessed', write: true, page: USED });
    const writing = await run.touch({ site, page: USED, offset: USED_OFFSET, bytes: STAMP });
    const write = gotOf(writing, STAMP);
    const kept = write === 'right' ? await afterArrival(run) : 'nothing';
    const writeOutcome = write !== 'right' ? OUTCOME_OF[write] : kept === 'both' ? 'works' : 'silent';
    return run.result(name, worstOf([OUTCOME_OF[read], writeOutcome]), { kind: 'ring', read, write, kept });
  } finally {
    await run.close();
  }
}

/** The page arrives after all: what of the entry and of the rest is there. */
async function afterArrival(run: ScenarioRun): Promise<'both' | 'entry' | 'rest'> {
  await run.pager.ensure([run.range(USED)]);
  const page = run.look(USED) ?? new Uint8Array(PAGE_BYTES);
  const entry = same(page.subarray(USED_OFFSET, USED_OFFSET + STAMP.length), STAMP);
  const source = patterned(PAGES).subarray(USED * PAGE_BYTES, (USED + 1) * PAGE_BYTES);
  const rest = same(page.subarray(0, USED_OFFSET), source.subarray(0, USED_OFFSET));
  run.note({ actor: { kind: 'guest' }, kind: 'ring-compared', entry, rest, page: USED });
  return entry && rest ? 'both' : entry ? 'entry' : 'rest';
}

export const vhost: Scenario = {
  name: 'vhost',
  title: 'vhost-like external access',
  description:
    'A device backend that bypasses KVM reads the descriptors of a ring and writes its used part, on pages that have not arrived; then they arrive.',
  source: 'Peter Xu, in the thread of November 2023: "vhost, which bypasses KVM\'s APIs"',
  cases: {
    'in-kernel': "vhost in the kernel, which uses the VMM's address space",
    'own-mapping': 'a vhost-user process, with a mapping of its own of the shared memory',
  },
  async run(uapi) {
    return [
      await ring(uapi, 'in-kernel', 'external-vhost', undefined),
      await ring(uapi, 'own-mapping', 'external-mapping', 'shmem'),
    ];
  },
};
