import {
  type AccessSite,
  type FaultKind,
  type MemoryKind,
  type Outcome,
  type PageIndex,
  type PageRange,
  type Verb,
} from '../../api/index.js';

/** What happened between a real kernel, those who access its memory and its handler, in order. */
export type RecordedEvent =
  | {
      readonly kind: 'touch';
      readonly id: number;
      readonly site: AccessSite;
      readonly page: PageIndex;
      readonly offset: number;
      readonly length: number;
      /** What is written; absent for a read. */
      readonly bytes?: Uint8Array;
    }
  /** `seen`: what was read. */
  | { readonly kind: 'end'; readonly id: number; readonly seen?: Uint8Array; readonly errno?: number }
  | { readonly kind: 'discard'; readonly id: number; readonly pages: PageRange }
  | { readonly kind: 'discarded'; readonly id: number }
  | { readonly kind: 'fault'; readonly fault: FaultKind; readonly page: PageIndex }
  | { readonly kind: 'event'; readonly event: string; readonly pages: PageRange | undefined }
  | RecordedVerb;

/** One row of a resolution, as it was carried out. */
export interface RecordedVerb {
  readonly kind: 'verb';
  readonly verb: Verb;
  readonly pages: PageRange;
  /** The contents that it brought; of CONTINUE, those that it put into the page cache first. */
  readonly bytes?: Uint8Array;
  readonly wake: boolean;
  readonly protect: boolean;
  readonly outcome: Outcome;
  /** Pages of it that were done. */
  readonly done: number;
}

/** Events of one run. */
export class Record {
  readonly events: RecordedEvent[] = [];
  memory: MemoryKind = 'anonymous';
  /** Pages that the page cache has are faults as well. */
  minor = false;
  page_bytes = 4096;
  pageCount = 0;
  #ids = 0;

  add(event: RecordedEvent): void {
    this.events.push(event);
  }

  nextId(): number {
    return this.#ids++;
  }

  /** A run begins. */
  clear(): void {
    this.events.length = 0;
    this.#ids = 0;
  }
}
