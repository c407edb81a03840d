import { type PageRange } from './address.js';
import { type AfterDiscard } from './discards.js';
import { DemandPagingError } from './error.js';
import { type InstallReason, type ResolverEvent } from './resolver-protocol.js';
import { type PageStates } from './page-states.js';
import { COUNTER, type Counters } from './statistics.js';

export interface PageAccountingOptions {
  readonly states: PageStates;
  /** The resolver's pages; they change with its regions. */
  readonly own: readonly PageRange[];
  readonly counters: Counters;
  notify(event: ResolverEvent): void;
}

/**
 * Keeps account of pages: their states, the counts, and the events about them. The only writer of a shard's
 * states.
 */
export class PageAccounting {
  readonly #o: PageAccountingOptions;
  #presentCount: number;
  /** Installs have a listener. */
  reportsInstalls = false;

  constructor(options: PageAccountingOptions) {
    this.#o = options;
    this.#presentCount = options.own.reduce((sum, pages) => sum + options.states.countPresent(pages), 0);
  }

  installed(pages: PageRange, why: InstallReason): void {
    const added = this.#o.states.setPresent(pages, true);
    this.#presentCount += added;
    this.#countInstalled(added, why);
    if (this.reportsInstalls) this.#o.notify({ kind: 'installed', pages, why });
    if (added > 0) this.#sayIfComplete();
  }

  /** The contents are there already. Throws PAGE_POISONED, changing nothing. */
  markPresent(pages: PageRange): void {
    const { states } = this.#o;
    if (states.any('poisoned', pages))
      throw new DemandPagingError('PAGE_POISONED', 'a poisoned page cannot be marked present');
    this.#presentCount += states.setPresent(pages, true);
    states.set('removed', pages, false);
    this.#sayIfComplete();
  }

  poisoned(pages: PageRange): void {
    const { states, counters, notify } = this.#o;
    this.#presentCount -= states.setPresent(pages, false);
    if (pages.count === 1 && states.is('poisoned', pages.first)) return; // poisoned before, and met again
    states.set('poisoned', pages, true);
    counters.add(COUNTER.poisonedPages, pages.count);
    notify({ kind: 'poisoned', pages });
  }

  /** The contents are discarded; `zero`: the pages read as zeros from now on. */
  discarded(pages: PageRange, then: AfterDiscard): void {
    const { states, counters } = this.#o;
    this.#presentCount -= states.setPresent(pages, false);
    for (const plane of ['poisoned', 'write-protected', 'unmapped'] as const) states.set(plane, pages, false);
    states.set('removed', pages, then === 'zero');
    counters.add(then === 'zero' ? COUNTER.removedPages : COUNTER.refetchPages, pages.count);
  }

  /** Present pages are physically gone, and no event said so. */
  vanished(pages: PageRange): void {
    this.#presentCount -= this.#o.states.setPresent(pages, false);
    this.#o.counters.add(COUNTER.vanishedPages);
  }

  /** They are served from now on, and their states are entered. */
  added(pages: PageRange): void {
    this.#presentCount += this.#o.states.countPresent(pages);
    this.#sayIfComplete();
  }

  /** They are served no longer: nothing is there to come any more. */
  removed(pages: PageRange): void {
    this.#o.states.set('frozen', pages, false);
    this.unmapped(pages);
  }

  unmapped(pages: PageRange): void {
    const { states } = this.#o;
    this.#presentCount -= states.setPresent(pages, false);
    for (const plane of ['removed', 'poisoned', 'write-protected'] as const) states.set(plane, pages, false);
    states.set('unmapped', pages, true);
  }

  #sayIfComplete(): void {
    const { own, notify } = this.#o;
    if (this.#presentCount === own.reduce((sum, { count }) => sum + count, 0)) notify({ kind: 'complete' });
  }

  #countInstalled(pages: number, why: InstallReason): void {
    const { counters } = this.#o;
    switch (why) {
      case 'demand': // less the page that was waited for, which the resolver counts
        return counters.add(COUNTER.aroundPages, pages);
      case 'prefetch':
        return counters.add(COUNTER.prefetchPages, pages);
      case 'ensured':
        return counters.add(COUNTER.ensuredPages, pages);
      case 'zeroed':
        return counters.add(COUNTER.zeroPages, pages);
      case 'raced':
        return counters.add(COUNTER.racedPages, pages);
    }
  }
}
