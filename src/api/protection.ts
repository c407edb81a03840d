import { type PageIndex, type PageRange } from './address.js';
import { type Supports } from './capability.js';
import { DemandPagingError } from './error.js';
import { ROW } from './fault.js';
import { type Installer } from './installer.js';
import { type MemoryLayout } from './layout.js';
import { type ResolverEvent } from './resolver-protocol.js';
import { eachPresent } from './page-runs.js';
import { type PageStates } from './page-states.js';
import { COUNTER, type Counters } from './statistics.js';

export interface ProtectionOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  readonly supports: Supports;
  readonly counters: Counters;
  readonly installer: Installer;
  notify(event: ResolverEvent): void;
  /** Contents on their way may not reach these pages any more; poison does. */
  cancel(pages: PageRange): void;
}

/** Keeps accessors from pages that are present: freezing, and write protection. */
export class Protection {
  readonly #o: ProtectionOptions;

  constructor(options: ProtectionOptions) {
    this.#o = options;
  }

  /** A fault on protection: a write to a write-protected page, or any access to an rw-protected one. */
  met(page: PageIndex, kind: number): void {
    const { states, installer, counters, notify } = this.#o;
    const pages = { first: page, count: 1 };
    if (kind === ROW['write-protect']) {
      states.set('write-protected', pages, false);
      installer.protect('writeprotect', pages, false);
      notify({ kind: 'written', pages });
    } else if (states.is('frozen', page)) counters.add(COUNTER.heldFaults);
    else installer.protect('rwprotect', pages, false);
  }

  freeze(ranges: readonly PageRange[]): void {
    const { states, supports, cancel } = this.#o;
    if (supports.freeze !== 'full' && ranges.some((pages) => states.countPresent(pages) > 0)) {
      throw new DemandPagingError('NOT_SUPPORTED', 'this backend cannot freeze pages that are present');
    }
    for (const pages of ranges) {
      states.set('frozen', pages, true);
      cancel(pages);
      this.#protect('rwprotect', pages, true);
    }
  }

  thaw(pages: PageRange): void {
    this.#o.states.set('frozen', pages, false);
    if (this.#o.supports.freeze === 'full') this.#protect('rwprotect', pages, false);
  }

  writeProtect(ranges: readonly PageRange[], on: boolean): void {
    const { states, supports, cancel } = this.#o;
    if (!supports.verbs.includes('writeprotect'))
      throw new DemandPagingError('NOT_SUPPORTED', 'this backend does not support writeprotect');
    for (const pages of ranges) {
      // The mark first: what is installed from now on is installed protected, so no page slips between.
      states.set('write-protected', pages, on);
      cancel(pages); // what is on its way was to come unprotected
      this.#protect('writeprotect', pages, on);
    }
  }

  /** Lifts every protection: no resolver is left that could lift it for an access that waits there. */
  lift(pages: PageRange): void {
    const { states, supports } = this.#o;
    if (supports.verbs.includes('writeprotect') && states.any('write-protected', pages))
      this.#protect('writeprotect', pages, false);
    if (supports.freeze === 'full' && states.any('frozen', pages)) this.#protect('rwprotect', pages, false);
  }

  #protect(verb: 'writeprotect' | 'rwprotect', pages: PageRange, on: boolean): void {
    const { layout, states, installer } = this.#o;
    eachPresent(layout, states, pages, (present) => installer.protect(verb, present, on));
  }
}
