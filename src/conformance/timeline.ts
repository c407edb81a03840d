import { type PageIndex } from '../api/index.js';

interface Entry {
  readonly moment: number;
  readonly who: string;
  readonly what: string;
  readonly page: PageIndex | undefined;
}

const SHOWN = 120;

/** Who did what, in order: printed when a property fails. */
export class Timeline {
  readonly #entries: Entry[] = [];

  /** `moment`: steps of the schedule, or milliseconds of a real run. */
  note(moment: number, who: string, what: string, page?: PageIndex): void {
    this.#entries.push({ moment, who, what, page });
  }

  /** The last entries, one a line. */
  toString(): string {
    const entries = this.#entries.slice(-SHOWN);
    const cut = this.#entries.length - entries.length;
    const lines = entries.map(({ moment, who, what, page }) => {
      const where = page === undefined ? '' : ` page ${page}`;
      return `${String(moment).padStart(6)}  ${who.padEnd(24)} ${what}${where}`;
    });
    return [...(cut > 0 ? [`        … ${cut} earlier`] : []), ...lines].join('\n');
  }
}
