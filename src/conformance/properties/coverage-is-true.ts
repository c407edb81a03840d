import fc from 'fast-check';
import { type AccessSite, type Effect } from '../../api/index.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import { BareResolver } from '../resolving.js';
import { canRead, canWrite } from '../scenario.js';
import { pause, settled, type Stage, type Touch } from '../stage.js';

/** What was seen to become of an access to a missing page. */
function effectSeen(touch: Touch, delivered: boolean): string {
  if (!touch.settled) return delivered ? (touch.exits ? 'exits' : 'blocks') : 'waits, and nobody is told';
  if (delivered) return `${touch.end}, though a fault was delivered`;
  return touch.end === 'done'
    ? 'unmediated'
    : touch.end === 'errored'
      ? 'errors'
      : touch.end === 'injected'
        ? 'injects'
        : 'killed';
}

const agrees = (declared: Effect, seen: string, stage: Stage): boolean =>
  // Whether a real vCPU left the kernel or waits in it cannot be told from outside.
  declared === seen || (!stage.exact && declared === 'exits' && seen === 'blocks');

export const coverageIsTrue = property<{
  readonly site: AccessSite;
  readonly page: number;
  readonly write: boolean;
}>({
  name: 'coverage-is-true',
  claim: 'at every site a missing page does exactly what the coverage declares, no less and no more',
  about: 'accesses',
  level: 'port',
  pages: 4,
  unless: () => undefined,
  plan: ({ sites }) => fc.record({ site: fc.constantFrom(...sites), page: fc.nat(3), write: fc.boolean() }),
  *body(stage, { site, page, write }, { coverage, mayFail, readOnly }) {
    const row = coverage.find((candidate) => candidate.site === site);
    const declared = row?.effect ?? 'unmediated';
    const bare = new BareResolver(stage);
    const writes = canWrite(site) && !readOnly.includes(site) && (write || !canRead(site));
    const bytes = writes ? stage.contents.foreign(page).slice(0, 8) : undefined;
    const touch = stage.touch({ site, page, ...(bytes && { bytes }) });
    while (!touch.settled && bare.faults.length === 0) {
      bare.take();
      yield pause;
    }
    bare.take();
    const seen = effectSeen(touch, bare.faults.length > 0);
    must(
      agrees(declared, seen, stage),
      `${site} is declared '${declared}', and a missing page there: ${seen}`,
    );
    if (bare.faults.length > 0) {
      must(
        row?.address !== 'exact' || bare.faults[0]!.page === page,
        `the fault says page ${bare.faults[0]!.page}, the access was to page ${page}`,
      );
      yield* bare.through({ first: page, count: 1 }, stage.contents.page(page));
      yield settled(touch);
      must(touch.end === 'done', `${site}, with its page installed: ${touch.end}`);
    } else if (declared === 'errors' && mayFail.includes(site) && canRead(site)) {
      yield* bare.through({ first: page, count: 1 }, stage.contents.page(page));
      const again = stage.touch({ site, page });
      yield settled(again);
      must(
        again.end === 'done' && stage.contents.recognise(again.bytes, page) === 'original',
        `${site}, tried again with its page installed: ${again.end}`,
      );
    }
  },
});
