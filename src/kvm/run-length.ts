import { type PageIndex } from '../api/address.js';

/** Each page of a run costs a memslot deletion in the pause, so a run has to earn its length. */
const LEAST = 16;
const MOST = 512;

/**
 * How many pages one memslot update maps. The length doubles while vCPUs access memory in order, because the
 * pages ahead are accessed next, and is halved when they jump.
 */
export class RunLength {
  /** Pages, a power of two. */
  length = LEAST;
  /** Where each vCPU's last mapped run ended: a vCPU that accesses memory in order faults there next. */
  readonly #ends = new Map<number, PageIndex>();

  /** A vCPU has faulted on a page. */
  faulted(vcpu: number, page: PageIndex): void {
    const end = this.#ends.get(vcpu);
    if (end === undefined) return;
    const follows = page >= end && page < end + this.length;
    this.length = follows ? Math.min(MOST, this.length * 2) : Math.max(LEAST, this.length / 2);
  }

  /** A run that ends before page `end` was mapped for it. */
  mapped(vcpu: number, end: PageIndex): void {
    this.#ends.set(vcpu, end);
  }
}
