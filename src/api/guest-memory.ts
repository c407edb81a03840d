import { type Gpa, type GpaRange, type PageRange, hex } from './address.js';
import { type RawMemory } from './backend.js';
import { DemandPagingError, type ErrorCode } from './error.js';
import { type MemoryLayout } from './layout.js';
import { type PageState, type PageStates } from './page-states.js';

/**
 * What an access to a page in each state is refused with. A page that reads present by now was missing when
 * it was looked at.
 */
const CODES = {
  missing: 'PAGE_MISSING',
  removed: 'PAGE_MISSING',
  present: 'PAGE_MISSING',
  poisoned: 'PAGE_POISONED',
  unmapped: 'MEMORY_GONE',
} as const satisfies Record<PageState, ErrorCode>;

/** What guest memory needs of its pager. */
export interface GuestMemoryOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  readonly raw: RawMemory;
  /** Brings pages; resolves when all are present. */
  ensure(ranges: readonly PageRange[]): Promise<void>;
  /** Hints pages; never waits. */
  hint(ranges: readonly PageRange[]): void;
  /** Why this thread must not block on pages of which some are missing or frozen, if it must not. */
  mustNotBlock(pages: readonly PageRange[]): string | undefined;
}

/**
 * The bytes of guest memory, by guest-physical address, with every access going through the pager.
 * Only copies are handed out: a view could outlive the mapping. All methods throw BAD_RANGE for an
 * address outside the regions, CLOSED after the pager closed.
 */
export class GuestMemory {
  readonly layout: MemoryLayout;
  readonly #o: GuestMemoryOptions;
  #closed = false;

  constructor(options: GuestMemoryOptions) {
    this.#o = options;
    this.layout = options.layout;
  }

  /** Whether every page of a range is present now. Never blocks. */
  isPresent(range: GpaRange): boolean {
    return this.#pages(range).every((pages) => this.#o.states.allPresent(pages));
  }

  /**
   * Copies bytes of pages that are all present. Never waits: throws PAGE_MISSING, PAGE_POISONED, PAGE_FROZEN
   * otherwise.
   */
  readSync(address: Gpa, length: number): Uint8Array {
    this.#requirePresent({ start: address, length: BigInt(length) });
    return this.#load(address, length);
  }

  /** Writes into pages that are all present. Never waits, as {@link readSync}. */
  writeSync(address: Gpa, bytes: Uint8Array): void {
    this.#requirePresent({ start: address, length: BigInt(bytes.length) });
    this.#o.raw.store(address, bytes);
  }

  /**
   * Copies bytes, bringing the pages first. The event loop goes on. Rejects with the pager's error if they
   * are unavailable.
   */
  async read(address: Gpa, length: number): Promise<Uint8Array> {
    await this.bring([{ start: address, length: BigInt(length) }]);
    return this.readSync(address, length);
  }

  /** Writes bytes, bringing the pages first: a part of a page must not go before its contents. */
  async write(address: Gpa, bytes: Uint8Array): Promise<void> {
    await this.bring([{ start: address, length: BigInt(bytes.length) }]);
    this.writeSync(address, bytes);
  }

  /**
   * Copies bytes straight from the mapping, as any thread of the VMM does: a missing page blocks this
   * thread in the kernel until the resolver brings it. Throws DEADLOCK where this thread is the one
   * that must serve it, or let go of it: pages that are frozen, or being discarded.
   */
  readBlocking(address: Gpa, length: number): Uint8Array {
    const range = { start: address, length: BigInt(length) };
    const pages = this.#pages(range);
    const { states } = this.#o;
    const waits = pages.some((each) => !states.allPresent(each) || states.any('frozen', each));
    const reason = waits ? this.#o.mustNotBlock(pages) : undefined;
    if (reason !== undefined) {
      throw new DemandPagingError(
        'DEADLOCK',
        `waiting for ${hex(address)} here would wait for itself: ${reason}`,
        { range, hint: 'Use read()' },
      );
    }
    return this.#load(address, length);
  }

  /** Brings pages; resolves when all are present. Pages removed meanwhile come as zeros. */
  async bring(ranges: readonly GpaRange[]): Promise<void> {
    const missing = ranges
      .flatMap((range) => this.#pages(range))
      .filter((pages) => !this.#o.states.allPresent(pages));
    if (missing.length > 0) await this.#o.ensure(missing);
  }

  /** Says that pages may be wanted soon. Never waits; what lies outside the regions is ignored. */
  hint(ranges: readonly GpaRange[]): void {
    if (this.#closed) return;
    this.#o.hint(ranges.flatMap((range) => this.layout.pagesInside(range)));
  }

  /** From now on every method throws CLOSED. */
  close(): void {
    this.#closed = true;
  }

  #load(address: Gpa, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.#o.raw.load(address, bytes);
    return bytes;
  }

  #pages(range: GpaRange): readonly PageRange[] {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the guest memory was closed');
    return this.layout.pagesOf(range);
  }

  #requirePresent(range: GpaRange): void {
    const { states } = this.#o;
    for (const { first, count } of this.#pages(range)) {
      const missing = states.nextMissing(first, first + count);
      const frozen = states.any('frozen', { first, count });
      if (missing === first + count && !frozen) continue;
      const code = frozen ? 'PAGE_FROZEN' : CODES[states.stateOf(missing)];
      const at = this.layout.gpaRangeOf({ first: frozen ? first : missing, count: 1 });
      throw new DemandPagingError(
        code,
        `the page at ${hex(at.start)} is ${frozen ? 'frozen' : states.stateOf(missing)}`,
        {
          range: { start: at.start, length: at.length },
        },
      );
    }
  }
}
