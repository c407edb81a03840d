import fc from 'fast-check';
import {
  type AnyProperty,
  type Manifest,
  pause,
  property,
  PropertyFailure,
  settled,
} from '../conformance/index.js';

const PAGES = 4;
/** More than an access takes that nothing stops. */
const TURNS = 20;

/** Whether a guest's load of a missing page waits for it. */
const guestWaits = ({ coverage, sites }: Manifest): boolean =>
  sites.includes('vcpu-load') &&
  coverage.some(({ site, effect }) => site === 'vcpu-load' && (effect === 'blocks' || effect === 'exits'));

/**
 * A page marked missing late, after the guest has used it. Where presence is only looked at on a stage-2 fault, a page
 * that is mapped there goes on as if nothing had been said.
 */
export const lateMissing = property<{ readonly page: number; readonly used: boolean }>({
  name: 'freeze-is-reversible',
  part: 'for a page that the guest has used',
  claim: 'a page that is marked missing again is missing at the next access, mapped or not',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    !guestWaits(manifest)
      ? 'a vCPU that meets a missing page does not wait here'
      : manifest.supports.freeze === 'full'
        ? undefined
        : 'a present page cannot be made missing here without losing its contents',
  plan: () => fc.record({ page: fc.nat(PAGES - 1), used: fc.boolean() }),
  *body(stage, { page, used }) {
    const pages = { first: page, count: 1 };
    yield settled(stage.pager.do('ensure', pages));
    if (used) yield settled(stage.touch({ site: 'vcpu-load', page }));
    yield settled(stage.pager.do('freeze', pages));
    const touch = stage.touch({ site: 'vcpu-load', page });
    for (let turn = 0; turn < TURNS; turn++) yield pause;
    if (touch.settled) throw new PropertyFailure(`${touch.name} went on though the page was marked missing`);
    yield settled(stage.pager.do('thaw', pages));
    yield settled(touch);
    if (touch.end !== 'done' || stage.contents.recognise(touch.bytes, page) !== 'original')
      throw new PropertyFailure(`${touch.name}, marked present again: ${touch.end}`);
  },
});

/**
 * The balloon during post-copy: the guest gives back a page that has not come yet. Nobody but the kernel
 * sees it, so a UAPI that announces no removals has the page filled from the source again.
 */
export const balloonInPostCopy = property<{ readonly page: number; readonly brought: boolean }>({
  name: 'removed-reads-zero',
  part: 'given back by a balloon during post-copy',
  claim: 'a page that was dropped by somebody else reads as zeros, whether it had come or not',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    !manifest.deterministic
      ? 'its schedule cannot be chosen'
      : guestWaits(manifest)
        ? undefined
        : 'a vCPU that meets a missing page does not wait here',
  plan: () => fc.record({ page: fc.nat(PAGES - 1), brought: fc.boolean() }),
  *body(stage, { page, brought }) {
    const pages = { first: page, count: 1 };
    if (brought) yield settled(stage.pager.do('ensure', pages));
    yield settled(stage.discard(pages));
    const touch = stage.touch({ site: 'vcpu-load', page });
    yield settled(touch);
    if (stage.contents.recognise(touch.bytes, page) !== 'zeros')
      throw new PropertyFailure(
        `${touch.name}, given back before, read ${stage.contents.describe(touch.bytes)}`,
      );
  },
});

/** What the mailing list's thread fears and the suite has no scenario for. */
export const HAZARDS: readonly AnyProperty[] = [lateMissing, balloonInPostCopy];
