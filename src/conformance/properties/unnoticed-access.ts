import fc from 'fast-check';
import { must } from '../failure.js';
import { property } from '../property.js';
import { BareResolver } from '../resolving.js';
import { canRead, stamp } from '../scenario.js';
import { pause } from '../environment.js';

const PAGES = 4;

/**
 * What an unmediated site means, as a property to be broken: its counterexample shows an access that goes
 * through to a page which has not come. Not of the suite, which holds a backend to what it declares.
 */
export const unnoticedAccess = property<number>({
  name: 'no-zero-leak',
  part: 'where it is not intercepted',
  about: 'accesses',
  claim: 'an access to a page that has not come is noticed',
  level: 'port',
  pages: PAGES,
  unless: ({ sites }) => (sites.length === 0 ? 'it cannot be exercised here' : undefined),
  plan: () => fc.nat(PAGES - 1),
  *body(environment, page, { sites }) {
    const site = sites[0]!;
    const bare = new BareResolver(environment);
    const touch = environment.touch({ site, page, ...(!canRead(site) && { bytes: stamp(0) }) });
    while (!touch.settled && bare.faults.length === 0) {
      bare.take();
      yield pause;
    }
    if (touch.end === 'done' && bare.faults.length === 0)
      environment.note({ actor: { kind: 'resolver' }, kind: 'fault-missed', page });
    must(touch.end !== 'done' || bare.faults.length > 0, () => ({
      kind: 'not-noticed',
      access: touch.ref,
      seen: canRead(site) ? environment.contents.recognise(touch.bytes, page) : undefined,
    }));
  },
});
