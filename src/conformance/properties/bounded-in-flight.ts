import { type Failure, must } from '../failure.js';
import { property } from '../property.js';
import { type Action, play, played, scenario } from '../scenario.js';

const PAGES = 10;

export const boundedInFlight = property<readonly Action[]>({
  name: 'bounded-in-flight',
  claim: 'no more fetches are under way at once than the policy allows, whoever asks for them',
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
  *body(stage, actions) {
    const { maxInFlight } = stage.pager.policy;
    const tooMany = (seen: number): Failure => ({ kind: 'too-many-fetches', seen, allowed: maxInFlight });
    stage.watch(() => (stage.source.underWay > maxInFlight ? tooMany(stage.source.underWay) : undefined));
    yield* play(stage, actions, played());
    const { mostUnderWay } = stage.source;
    stage.note({ actor: { kind: 'source' }, kind: 'fetches-counted', most: mostUnderWay });
    must(mostUnderWay <= maxInFlight, () => tooMany(mostUnderWay));
  },
});
