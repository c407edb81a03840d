import { type TraceEvent } from './trace-event.js';

/** A memslot: where guest memory lies in the process. */
export interface PlacedSlot {
  readonly gpa: number;
  readonly length: number;
  readonly userspace: number;
}

const number = (event: TraceEvent, field: string): number | undefined => {
  const text = event.fields.get(field);
  return text === undefined ? undefined : Number(text);
};

/** Finds the pages of guest memory that an event of the trace names. Addresses and lengths are in bytes. */
export class GuestPages {
  constructor(
    readonly slots: readonly PlacedSlot[],
    readonly page_bytes: number,
  ) {}

  /**
   * Guest-physical addresses of the pages an access names; undefined when it names an address elsewhere in
   * the process.
   */
  of(event: TraceEvent): readonly number[] | undefined {
    const hva = number(event, 'hva');
    if (hva !== undefined) {
      const gpa = this.#gpaOf(hva);
      return gpa === undefined ? undefined : [this.#page(gpa)];
    }
    const gfn = number(event, 'gfn');
    const gpa = number(event, 'gpa') ?? (gfn === undefined ? undefined : gfn * this.page_bytes);
    if (gpa === undefined) return [];
    const start = gpa + (number(event, 'offset') ?? 0);
    const end = start + Math.max(number(event, 'length') ?? 1, 1);
    const pages: number[] = [];
    for (let page = this.#page(start); page < end; page += this.page_bytes) pages.push(page);
    return pages;
  }

  /** The page that a thread waits for; undefined when it lies elsewhere. */
  waitedFor(event: TraceEvent): number | undefined {
    const gpa = this.#gpaOf(number(event, 'address') ?? 0);
    return gpa === undefined ? undefined : this.#page(gpa);
  }

  isMemory(page: number): boolean {
    return this.slots.some(({ gpa, length }) => page >= gpa && page < gpa + length);
  }

  #gpaOf(hva: number): number | undefined {
    const slot = this.slots.find(({ userspace, length }) => hva >= userspace && hva < userspace + length);
    return slot && slot.gpa + (hva - slot.userspace);
  }

  #page(address: number): number {
    return address - (address % this.page_bytes);
  }
}
