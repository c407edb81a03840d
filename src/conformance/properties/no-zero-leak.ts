import fc from 'fast-check';
import { type AccessSite } from '../../api/index.js';
import { mustNotReadZeros, mustRead } from '../expectations.js';
import { type Manifest, property } from '../property.js';
import { type Action, canRead, runActions, noneStarted, scenario, waitingSites } from '../scenario.js';
import { settled } from '../environment.js';

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
        of: ['read', 'read', 'read', 'ensure', 'prefetch', 'discard-refetch', 'freeze', 'thaw', 'protect'],
      }),
      offset: fc.constantFrom(...OFFSETS),
      late: fc.array(fc.nat(PAGES - 1), { maxLength: 3 }),
      told: fc.uniqueArray(fc.nat(PAGES - 1), { maxLength: 3 }),
    }),
  *body(environment, { actions, offset, late, told }, manifest) {
    const into = noneStarted();
    for (const page of told) environment.source.tellZeros(page);
    yield* runActions(environment, actions, into, { offset });
    const site = sitesOf(manifest)[0]!;
    // Those that come as the pager closes may fail; they may not read what is not there.
    const closes =
      environment.attachment.supports.verbs.includes('poison') && manifest.mayFail.includes(site);
    const reads = [...into.reads, ...late.map((page) => environment.touch({ site, page, offset }))];
    if (closes) yield settled(environment.pager.close());
    yield settled(...reads);
    for (const read of reads) {
      if (read.end !== 'done') continue;
      if (told.includes(read.page)) mustRead(environment, read, 'zeros');
      else mustNotReadZeros(environment, read);
    }
  },
});
