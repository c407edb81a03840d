import { type AccessSite, type MemoryKind } from '../api/index.js';
import { gotOf, GRADE_OF, same, SAYS } from './outcome.js';
import { PAGE_BYTES, patterned, Play } from './play.js';
import { type CaseVerdict, type Scenario, worstOf } from './scenario.js';
import { type JudgedUapi } from './uapis.js';

const PAGES = 8;
/** Where the descriptors of the ring are, and where its used part is. */
const DESCRIPTORS = 2;
const USED = 5;
const USED_OFFSET = 1024;
const STAMP = Uint8Array.of(0xee, 1, 0xee, 2, 0xee, 3, 0xee, 4);

/** A device backend reads a descriptor and writes a used entry, both on pages that have not come. */
async function ring(
  uapi: JudgedUapi,
  name: string,
  site: AccessSite,
  memory: MemoryKind | undefined,
): Promise<CaseVerdict> {
  const play = await Play.open(uapi, { pages: PAGES, ...(memory && { memory }) });
  try {
    const wanted = patterned(PAGES).subarray(DESCRIPTORS * PAGE_BYTES, DESCRIPTORS * PAGE_BYTES + 16);
    play.note('vhost', 'reads a descriptor from', DESCRIPTORS);
    const read = gotOf(await play.touch({ site, page: DESCRIPTORS, length: 16 }), wanted);
    play.note('vhost', 'writes a used entry to', USED);
    const write = await play.touch({ site, page: USED, offset: USED_OFFSET, bytes: STAMP });
    const wrote = gotOf(write, STAMP);
    const kept = wrote === 'right' ? await afterArrival(play) : 'nothing';
    const readGrade = GRADE_OF[read];
    const writeGrade = wrote !== 'right' ? GRADE_OF[wrote] : kept === 'both' ? 'works' : 'silent';
    const loss =
      kept === 'both'
        ? 'what it writes is kept'
        : wrote !== 'right'
          ? `a write ${SAYS[wrote]}`
          : kept === 'entry'
            ? 'its write makes a page of zeros that the contents never replace'
            : 'its write is overwritten when the page arrives';
    const grade = worstOf([{ grade: readGrade }, { grade: writeGrade }]);
    return play.verdict(name, grade, `a read ${SAYS[read]}; ${loss}`);
  } finally {
    await play.close();
  }
}

/** The page arrives after all: what of the entry and of the rest is there. */
async function afterArrival(play: Play): Promise<'both' | 'entry' | 'rest'> {
  await play.pager.ensure([play.range(USED)]);
  const page = play.look(USED) ?? new Uint8Array(PAGE_BYTES);
  const entry = same(page.subarray(USED_OFFSET, USED_OFFSET + STAMP.length), STAMP);
  const source = patterned(PAGES).subarray(USED * PAGE_BYTES, (USED + 1) * PAGE_BYTES);
  const rest = same(page.subarray(0, USED_OFFSET), source.subarray(0, USED_OFFSET));
  play.note(
    'guest',
    `finds the entry ${entry ? 'there' : 'gone'}, the rest ${rest ? 'there' : 'zeros'} on`,
    USED,
  );
  return entry && rest ? 'both' : entry ? 'entry' : 'rest';
}

export const vhost: Scenario = {
  name: 'vhost',
  title: 'vhost-like external access',
  plays:
    'A device backend that bypasses KVM reads the descriptors of a ring and writes its used part, on pages that have not arrived; then they arrive.',
  source: 'Peter Xu, in the thread of November 2023: "vhost, which bypasses KVM\'s APIs"',
  cases: {
    'in-kernel': "vhost in the kernel, which uses the VMM's address space",
    'own-mapping': 'a vhost-user process, with a mapping of its own of the shared memory',
  },
  async play(uapi) {
    return [
      await ring(uapi, 'in-kernel', 'external-vhost', undefined),
      await ring(uapi, 'own-mapping', 'external-mapping', 'shmem'),
    ];
  },
};
