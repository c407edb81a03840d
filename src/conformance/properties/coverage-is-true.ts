import fc from 'fast-check';
import { type AccessSite, type Effect } from '../../api/index.js';
import { mustBeServed, mustEnd } from '../expectations.js';
import { type EffectSeen, must } from '../failure.js';
import { property } from '../property.js';
import { BareResolver } from '../resolving.js';
import { canRead, canWrite } from '../scenario.js';
import { pause, settled, type Environment, type Touch } from '../environment.js';

/** What was seen to become of an access to a missing page. */
function effectSeen({ end, exits }: Touch, delivered: boolean): EffectSeen {
  if (end === undefined) return delivered ? (exits ? 'exits' : 'blocks') : 'not-delivered';
  if (delivered) return 'delivered-and-ended';
  return ({ done: 'unmediated', errored: 'errors', injected: 'injects', killed: 'killed' } as const)[end];
}

const agrees = (declared: Effect, seen: EffectSeen, environment: Environment): boolean =>
  // Whether a real vCPU left the kernel or waits in it cannot be told from outside.
  declared === seen || (!environment.exact && declared === 'exits' && seen === 'blocks');

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
  *body(environment, { site, page, write }, { coverage, mayFail, readOnly }) {
    const row = coverage.find((each) => each.site === site);
    const declared = row?.effect ?? 'unmediated';
    const bare = new BareResolver(environment);
    const writes = canWrite(site) && !readOnly.includes(site) && (write || !canRead(site));
    const bytes = writes ? environment.contents.foreign(page).slice(0, 8) : undefined;
    const touch = environment.touch({ site, page, ...(bytes && { bytes }) });
    while (!touch.settled && bare.faults.length === 0) {
      bare.take();
      yield pause;
    }
    bare.take();
    const seen = effectSeen(touch, bare.faults.length > 0);
    must(agrees(declared, seen, environment), () => ({ kind: 'wrong-effect', site, declared, seen }));
    if (bare.faults.length > 0) {
      const reported = bare.faults[0]!.page;
      must(row?.address !== 'exact' || reported === page, () => ({
        kind: 'wrong-address',
        access: touch.ref,
        reported,
      }));
      yield* bare.through({ first: page, count: 1 }, environment.contents.page(page));
      yield settled(touch);
      mustEnd(touch, 'done');
    } else if (declared === 'errors' && mayFail.includes(site) && canRead(site)) {
      yield* bare.through({ first: page, count: 1 }, environment.contents.page(page));
      const again = environment.touch({ site, page });
      yield settled(again);
      mustBeServed(environment, again);
    }
  },
});
