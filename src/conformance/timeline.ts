import { type PageIndex } from '../api/index.js';
import { narrate } from './narration.js';

/** One event of a run. `moment`: steps of the schedule, or milliseconds of a real run. */
export interface TimelineEntry {
  readonly moment: number;
  readonly who: string;
  readonly what: string;
  readonly page?: PageIndex | undefined;
}

/** Of a long story, lines from its beginning and from its end. */
const SHOWN = 60;

type Noted = Omit<TimelineEntry, 'what'> & { readonly what: string | (() => string) };

/** Who did what, in order: told when a property fails. */
export class Timeline {
  readonly #entries: Noted[] = [];
  /** Told of each event as it happens. */
  onNote: ((entry: TimelineEntry) => void) | undefined;

  /** `what` may be made only when it is told: what it depends on must not change any more. */
  note(moment: number, who: string, what: string | (() => string), page?: PageIndex): void {
    this.#entries.push({ moment, who, what, page });
    this.onNote?.({ moment, who, what: spell(what), page });
  }

  get entries(): readonly TimelineEntry[] {
    return this.#entries.map((entry) => ({ ...entry, what: spell(entry.what) }));
  }

  /** One event a line; of many the first and the last. */
  lines(): string[] {
    const all = narrate(this.entries);
    const cut = all.length - 2 * SHOWN;
    return cut > 0 ? [...all.slice(0, SHOWN), `        … ${cut} more`, ...all.slice(-SHOWN)] : all;
  }

  toString(): string {
    return this.lines().join('\n');
  }
}

const spell = (what: string | (() => string)): string => (typeof what === 'string' ? what : what());
