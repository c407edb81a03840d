import { type Failure, must } from '../failure.js';
import { property } from '../property.js';
import { type Action, runActions, noneStarted, scenario } from '../scenario.js';

const PAGES = 10;

export const boundedInFlight = property<readonly Action[]>({
  name: 'bounded-in-flight',
  claim: 'no more fetches are under way at once than the policy allows, whatever asks for them',
  about: 'backend',
  level: 'pager',
  pages: PAGES,
  unless: () => undefined,
  plan: (manifest) =>
    scenario(manifest, {
      pages: PAGES,
      span: 10,
      wait: false,
      most: 12,
      of: ['read', 'read', 'ensure', 'prefetch'],
    }),
  synchronous: () => false,
  *body(environment, actions) {
    const { maxInFlight } = environment.pager.policy;
    const tooMany = (seen: number): Failure => ({ kind: 'too-many-fetches', seen, allowed: maxInFlight });
    environment.watch(() =>
      environment.source.inFlight > maxInFlight ? tooMany(environment.source.inFlight) : undefined,
    );
    yield* runActions(environment, actions, noneStarted());
    const { mostInFlight } = environment.source;
    environment.note({ actor: { kind: 'source' }, kind: 'fetches-counted', most: mostInFlight });
    must(mostInFlight <= maxInFlight, () => tooMany(mostInFlight));
  },
});
