import fc from 'fast-check';
import { must } from '../failure.js';
import { property } from '../property.js';
import { type Action, play, played, scenario, waitingSites } from '../scenario.js';
import { settled } from '../stage.js';

const PAGES = 8;
const OFFSETS = [0, 2048, 4088];

export const noZeroLeak = property<{
  readonly actions: readonly Action[];
  readonly offset: number;
  readonly late: readonly number[];
}>({
  name: 'no-zero-leak',
  claim: 'a missing page never reads as zeros, unless it was removed; not even when the pager closes',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    waitingSites(manifest).some((site) => manifest.mayFail.includes(site))
      ? undefined
      : 'no site that can be exercised here waits for a page',
  plan: (manifest) =>
    fc.record({
      actions: scenario(manifest, {
        pages: PAGES,
        sites: waitingSites(manifest).filter((site) => manifest.mayFail.includes(site)),
        of: ['read', 'read', 'read', 'ensure', 'prefetch', 'withdraw', 'freeze', 'thaw', 'protect'],
      }),
      offset: fc.constantFrom(...OFFSETS),
      late: fc.array(fc.nat(PAGES - 1), { maxLength: 3 }),
    }),
  *body(stage, { actions, offset, late }, manifest) {
    const into = played();
    yield* play(stage, actions, into, { offset });
    const site = waitingSites(manifest).find((candidate) => manifest.mayFail.includes(candidate))!;
    // Those that come as the pager closes may fail; they may not read what is not there.
    const reads = [...into.reads, ...late.map((page) => stage.touch({ site, page, offset }))];
    if (stage.attachment.supports.verbs.includes('poison')) {
      yield settled(stage.pager.close());
    }
    yield settled(...reads);
    for (const { page, bytes, end, name } of reads) {
      if (end !== 'done') continue;
      must(
        stage.contents.recognise(bytes, page, offset) !== 'zeros',
        `${name} read zeros at offset ${offset}`,
      );
    }
  },
});
