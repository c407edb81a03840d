import fc from 'fast-check';
import { type AccessSite } from '../../api/index.js';
import { mustNotReadZeros, mustRead } from '../expectations.js';
import { type Manifest, property } from '../property.js';
import { type Action, canRead, play, played, scenario, waitingSites } from '../scenario.js';
import { settled } from '../stage.js';

const PAGES = 8;
const OFFSETS = [0, 2048, 4088];

/** Sites that wait for a page to read; of those, ones that survive its failure if there are any. */
function sitesOf(manifest: Manifest): readonly AccessSite[] {
  const waiting = waitingSites(manifest).filter(canRead);
  const survivors = waiting.filter((site) => manifest.mayFail.includes(site));
  return survivors.length > 0 ? survivors : waiting;
}

export const noZeroLeak = property<{
  readonly actions: readonly Action[];
  readonly offset: number;
  readonly late: readonly number[];
  /** Pages that the source says are zeros. */
  readonly told: readonly number[];
}>({
  name: 'no-zero-leak',
  claim:
    'a missing page reads as zeros where it was removed or the source says so, and nowhere else; not even when the pager closes',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    sitesOf(manifest).length > 0 ? undefined : 'no site that can be exercised here waits for a page',
  plan: (manifest) =>
    fc.record({
      actions: scenario(manifest, {
        pages: PAGES,
        sites: sitesOf(manifest),
        of: ['read', 'read', 'read', 'ensure', 'prefetch', 'withdraw', 'freeze', 'thaw', 'protect'],
      }),
      offset: fc.constantFrom(...OFFSETS),
      late: fc.array(fc.nat(PAGES - 1), { maxLength: 3 }),
      told: fc.uniqueArray(fc.nat(PAGES - 1), { maxLength: 3 }),
    }),
  *body(stage, { actions, offset, late, told }, manifest) {
    const into = played();
    for (const page of told) stage.source.tellZeros(page);
    yield* play(stage, actions, into, { offset });
    const site = sitesOf(manifest)[0]!;
    // Those that come as the pager closes may fail; they may not read what is not there.
    const closes = stage.attachment.supports.verbs.includes('poison') && manifest.mayFail.includes(site);
    const reads = [...into.reads, ...late.map((page) => stage.touch({ site, page, offset }))];
    if (closes) yield settled(stage.pager.close());
    yield settled(...reads);
    for (const read of reads) {
      if (read.end !== 'done') continue;
      if (told.includes(read.page)) mustRead(stage, read, 'zeros');
      else mustNotReadZeros(stage, read);
    }
  },
});
