import { type PageIndex } from '../api/address.js';

/** Each page of a run costs a deletion while the vCPUs stand, so a run has to earn its length. */
const LEAST = 16;
const MOST = 512;

/**
 * How many pages go live by one change of slots. It doubles while vCPUs go through memory in order, because what
 * lies ahead will be asked for next, and is halved when they jump.
 */
export class RunLength {
  /** Pages, a power of two. */
  length = LEAST;
  /** Where the runs shown last ended: a vCPU that goes through memory asks there next. */
  readonly #ends = new Map<number, PageIndex>();

  /** A vCPU asks for a page. */
  asked(vcpu: number, page: PageIndex): void {
    const end = this.#ends.get(vcpu);
    if (end === undefined) return;
    const follows = page >= end && page < end + this.length;
    this.length = follows ? Math.min(MOST, this.length * 2) : Math.max(LEAST, this.length / 2);
  }

  /** It was shown a run that ends before page `end`. */
  shown(vcpu: number, end: PageIndex): void {
    this.#ends.set(vcpu, end);
  }
}
