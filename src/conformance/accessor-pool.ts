import { type AccessSite, type Attachment } from '../api/index.js';
import { type RealAccessor, type RealSubject } from './subject.js';

/**
 * The real accessors of a check: started when they are first needed, used again when they are free, by
 * later environments too whose memory lies at the same addresses. Starting a thread takes longer than a run.
 */
export class AccessorPool {
  readonly #subject: RealSubject;
  readonly #free = new Map<string, RealAccessor[]>();
  readonly #started: Promise<RealAccessor>[] = [];

  constructor(subject: RealSubject) {
    this.#subject = subject;
  }

  /** An accessor of an attachment's memory that does nothing else meanwhile. */
  take(site: AccessSite, attachment: Attachment): Promise<RealAccessor> {
    const free = this.#free.get(placeOf(site, attachment))?.pop();
    if (free) return Promise.resolve(free);
    const starting = this.#subject.accessor(site, attachment);
    this.#started.push(starting);
    return starting;
  }

  /** It is free again. */
  giveBack(site: AccessSite, attachment: Attachment, accessor: RealAccessor): void {
    const place = placeOf(site, attachment);
    const free = this.#free.get(place);
    if (free) free.push(accessor);
    else this.#free.set(place, [accessor]);
  }

  /** Ends all of them. No access may wait on a thread any more. */
  async stop(): Promise<void> {
    for (const starting of this.#started) {
      const accessor = await starting.catch(() => undefined);
      await accessor?.stop();
    }
  }
}

/** What an accessor is bound to: a site, and where the memory is. */
const placeOf = (site: AccessSite, { layout }: Attachment): string =>
  [site, ...layout.regions.map(({ hva, length }) => `${hva}+${length}`)].join(' ');
