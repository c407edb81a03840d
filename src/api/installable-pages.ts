import { type PageIndex, type PageRange } from './address.js';
import { type Discards } from './discards.js';
import { type Installer } from './installer.js';
import { type MemoryLayout } from './layout.js';
import { type PageStates } from './page-states.js';

/** States in which a missing page is not simply fetched. */
const SPECIAL = ['removed', 'poisoned', 'frozen', 'unmapped'] as const;

export interface InstallablePagesOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  readonly discards: Discards;
  readonly installer: Pick<Installer, 'poisoning' | 'poisons'>;
  /** The resolver's pages; they change with its regions. */
  readonly own: readonly PageRange[];
  readonly faultAroundPages: number;
  /** Cuts a run down to the part around `keep` that no fetch in flight brings. */
  clip(run: PageRange, keep: PageIndex): PageRange;
}

/** Judges pages by the states of this moment: which are held, and into which contents may be installed. */
export class InstallablePages {
  readonly #o: InstallablePagesOptions;
  readonly #states: PageStates;
  readonly #discards: Discards;

  constructor(options: InstallablePagesOptions) {
    this.#o = options;
    this.#states = options.states;
    this.#discards = options.discards;
  }

  /**
   * Frozen, being discarded, or about to be poisoned: an accessor of the page stays blocked until that has
   * ended.
   */
  isHeld(page: PageIndex): boolean {
    return this.#states.is('frozen', page) || this.#discards.covers(page) || this.#o.installer.poisons(page);
  }

  /** Missing, nothing special, and not held: contents may be installed. */
  isInstallable(page: PageIndex): boolean {
    return this.#states.stateOf(page) === 'missing' && !this.isHeld(page);
  }

  /** The first page from `at` below `end` that is wanted, or `end`. */
  next(at: PageIndex, end: PageIndex): PageIndex {
    if (this.#allPlain()) return this.#states.nextMissing(at, end);
    while (at < end && !this.isInstallable(at)) at++;
    return at;
  }

  /** The first page from `at` below `end` that is not wanted, or `end`. */
  nextNotInstallable(at: PageIndex, end: PageIndex): PageIndex {
    if (this.#allPlain()) return this.#states.nextPresent(at, end);
    while (at < end && this.isInstallable(at)) at++;
    return at;
  }

  /** The window of fault-around: the run of fetchable pages around `page` inside its aligned window. */
  window(page: PageIndex): PageRange {
    const { layout, own, faultAroundPages: size } = this.#o;
    const pages = own.find(({ first, count }) => page >= first && page < first + count);
    if (size === 1 || !pages) return { first: page, count: 1 };
    const region = layout.regionOf(page);
    const start = region.firstPage + Math.floor((page - region.firstPage) / size) * size;
    const first = Math.max(start, pages.first);
    const end = Math.min(start + size, region.firstPage + region.pageCount, pages.first + pages.count);
    return this.fetchable(first, end, page);
  }

  /**
   * The run of pages in [first, end) that contains `keep` and can be fetched: missing, nothing special, not
   * in flight.
   */
  fetchable(first: PageIndex, end: PageIndex, keep: PageIndex): PageRange {
    const states = this.#states;
    let from = first;
    for (
      let present = states.nextPresent(from, keep);
      present < keep;
      present = states.nextPresent(from, keep)
    ) {
      from = states.nextMissing(present, keep);
    }
    const run = this.#o.clip({ first: from, count: states.nextPresent(keep, end) - from }, keep);
    const plain = this.#allPlain() || (!SPECIAL.some((plane) => states.any(plane, run)) && this.#noneHeld());
    return plain ? run : this.#trim(run, keep);
  }

  #trim(run: PageRange, keep: PageIndex): PageRange {
    let first = keep;
    while (first > run.first && this.isInstallable(first - 1)) first--;
    return { first, count: this.nextNotInstallable(keep + 1, run.first + run.count) - first };
  }

  /** No page is anything but missing or present, and none is held: runs can be found by the word. */
  #allPlain(): boolean {
    return this.#states.plain && this.#noneHeld();
  }

  /** No page is held but those that are frozen. */
  #noneHeld(): boolean {
    return this.#discards.none() && !this.#o.installer.poisoning;
  }
}
