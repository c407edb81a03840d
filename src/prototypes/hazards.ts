import fc from 'fast-check';
import { type AccessSite } from '../api/index.js';
import {
  type AnyProperty,
  canRead,
  type Manifest,
  pause,
  must,
  mustBeServed,
  mustNotReadZeros,
  mustRead,
  property,
  settled,
  waitingSites,
} from '../conformance/index.js';

const PAGES = 4;
/** More than an access takes that nothing stops. */
const TURNS = 20;
const TAIL_BYTES = 8;

/** Sites at which an accessor waits for a missing page to read it; a guest's load first. */
const readers = (manifest: Manifest): readonly AccessSite[] => {
  const sites = waitingSites(manifest).filter(canRead);
  return sites.includes('vcpu-load') ? ['vcpu-load'] : sites;
};

const NONE_WAITS = 'no access that meets a missing page waits here';

/**
 * A page marked missing late, after the guest has used it. Where presence is only looked at on a stage-2 fault, a page
 * that is mapped there goes on as if nothing had been said.
 */
export const lateMissing = property<{ readonly page: number; readonly used: boolean }>({
  name: 'freeze-is-reversible',
  part: 'for a page that the guest has used',
  claim: 'a page that is marked missing again is missing at the next access, mapped or not',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    readers(manifest).length === 0
      ? NONE_WAITS
      : manifest.supports.freeze === 'full'
        ? undefined
        : 'a present page cannot be made missing here without losing its contents',
  plan: () => fc.record({ page: fc.nat(PAGES - 1), used: fc.boolean() }),
  *body(environment, { page, used }, manifest) {
    const site = readers(manifest)[0]!;
    const pages = { first: page, count: 1 };
    yield settled(environment.pager.do('ensure', pages));
    if (used) yield settled(environment.touch({ site, page }));
    yield settled(environment.pager.do('freeze', pages));
    const touch = environment.touch({ site, page });
    for (let turn = 0; turn < TURNS; turn++) yield pause;
    must(touch.end !== 'done', () => ({ kind: 'not-stopped', access: touch.ref, page: 'marked-missing' }));
    yield settled(environment.pager.do('thaw', pages));
    yield settled(touch);
    mustBeServed(environment, touch);
  },
});

/**
 * The balloon during post-copy: the guest gives back a page that has not come yet. Only the kernel
 * sees it, so a UAPI that announces no removals has the page filled from the source again.
 */
export const balloonInPostCopy = property<{ readonly page: number; readonly brought: boolean }>({
  name: 'removed-reads-zero',
  part: 'given back by a balloon during post-copy',
  claim: 'a page that another thread has discarded reads as zeros, whether it had come or not',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    !manifest.deterministic
      ? 'its schedule cannot be chosen'
      : readers(manifest).length > 0
        ? undefined
        : NONE_WAITS,
  plan: () => fc.record({ page: fc.nat(PAGES - 1), brought: fc.boolean() }),
  *body(environment, { page, brought }, manifest) {
    const site = readers(manifest)[0]!;
    const pages = { first: page, count: 1 };
    if (brought) yield settled(environment.pager.do('ensure', pages));
    yield settled(environment.discard(pages));
    const touch = environment.touch({ site, page });
    yield settled(touch);
    mustRead(environment, touch, 'zeros');
  },
});

/**
 * A page that is read while it is brought. Where presence is said before the contents are there, or is the first of
 * several stores, an access in between sees too little.
 */
const whileBrought = (name: 'no-zero-leak' | 'no-torn-page', claim: string): AnyProperty =>
  property<{ readonly page: number; readonly others: number }>({
    name,
    part: 'read while its page is brought',
    claim,
    about: 'reads',
    level: 'pager',
    pages: PAGES,
    unless: (manifest) => (readers(manifest).length === 0 ? NONE_WAITS : undefined),
    plan: () => fc.record({ page: fc.nat(PAGES - 1), others: fc.nat(5) }),
    policy: () => ({ faultAroundPages: 1 }),
    *body(environment, { page, others }, manifest) {
      const site = readers(manifest)[0]!;
      const ensure = environment.pager.do('ensure', { first: page, count: 1 });
      // The end of a page is written last: read alone, it is there or it is zeros.
      const { page_bytes } = environment.contents;
      const [offset, length] =
        name === 'no-zero-leak' ? [page_bytes - TAIL_BYTES, TAIL_BYTES] : [0, page_bytes];
      const touches = [environment.touch({ site, page, offset, length })];
      for (let more = 0; more < others; more++) {
        if (more % 2 === 1) yield pause;
        touches.push(environment.touch({ site, page, offset, length }));
      }
      yield settled(ensure, ...touches);
      for (const touch of touches) {
        if (touch.end !== 'done') continue; // what the site does is another property's affair
        if (name === 'no-zero-leak') mustNotReadZeros(environment, touch);
        else mustRead(environment, touch, 'original-or-zeros');
      }
    },
  });

export const zeroWhileBrought = whileBrought(
  'no-zero-leak',
  'a page that is read while it is brought does not read as zeros',
);
export const tornWhileBrought = whileBrought(
  'no-torn-page',
  'a page that is read while it is brought is seen whole or not at all',
);

/**
 * A page that is brought while the fault for it is on its way: between the vCPU's leaving and its coming back to wait,
 * the thread that brings it finds no waiter to wake.
 */
export const broughtBeforeWaiting = property<{ readonly page: number }>({
  name: 'no-lost-wake',
  part: 'brought before its vCPU is back to wait',
  claim: 'an access whose page comes before it waits goes on all the same',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  coversWaking: true,
  unless: (manifest) => (readers(manifest).length === 0 ? NONE_WAITS : undefined),
  plan: () => fc.record({ page: fc.nat(PAGES - 1) }),
  policy: () => ({ faultAroundPages: 1 }),
  *body(environment, { page }, manifest) {
    const touch = environment.touch({ site: readers(manifest)[0]!, page });
    yield pause;
    yield settled(touch, environment.pager.do('ensure', { first: page, count: 1 }));
  },
});

/** What the mailing list's thread fears and the suite has no scenario for. */
export const HAZARDS: readonly AnyProperty[] = [
  lateMissing,
  balloonInPostCopy,
  zeroWhileBrought,
  tornWhileBrought,
  broughtBeforeWaiting,
];
