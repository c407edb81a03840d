import {
  type FaultBatch,
  type FaultPort,
  FLAG,
  type OutsideFault,
  type Outcome,
  type PageIndex,
  type PageRange,
  type ResolutionBatch,
  VERBS,
  type Wait,
} from '../api/index.js';
import { type TraceEvent } from './trace.js';

type Note = (event: TraceEvent) => void;

const RESOLVER = { kind: 'resolver' } as const;

/** A port whose traffic is noted: the faults and events that are read of it, and what is asked of it. */
export class NotedPort implements FaultPort {
  readonly #port: FaultPort;
  readonly #note: Note;

  constructor(port: FaultPort, note: Note) {
    this.#port = port;
    this.#note = note;
  }

  get staging(): Uint8Array {
    return this.#port.staging;
  }

  take(batch: FaultBatch, wait: Wait, timeout_ms: number): number {
    const before = batch.count;
    const taken = this.#port.take(batch, wait, timeout_ms);
    for (let row = before; row < batch.count; row++) this.#taken(batch, row);
    return taken;
  }

  ready(): Promise<void> {
    return this.#port.ready();
  }

  resolve(batch: ResolutionBatch): void {
    this.#port.resolve(batch);
    for (let row = 0; row < batch.count; row++) this.#resolved(batch, row);
  }

  resident(page: PageIndex): boolean {
    return this.#port.resident(page);
  }

  locate(address: number): PageIndex {
    return this.#port.locate?.(address) ?? -1;
  }

  answerOutside(fault: OutsideFault, answer: 'zeros' | 'poison'): Outcome {
    return this.#port.answerOutside?.(fault, answer) ?? 'refused';
  }

  addRegions(token: unknown): void {
    this.#port.addRegions?.(token);
  }

  removeRegion(pages: PageRange): void {
    this.#port.removeRegion?.(pages);
  }

  close(): void {
    this.#port.close();
  }

  #taken(batch: FaultBatch, row: number): void {
    const actor = RESOLVER;
    if (batch.isEvent(row)) {
      const event = batch.event(row);
      const pages = 'pages' in event ? { pages: event.pages } : {};
      return this.#note({ actor, kind: 'event-read', event: event.kind, ...pages });
    }
    const { kind: fault, page } = batch.fault(row);
    this.#note({ actor, kind: 'fault-read', fault, page: batch.isOutside(row) ? undefined : page });
  }

  #resolved(batch: ResolutionBatch, row: number): void {
    this.#note({
      actor: RESOLVER,
      kind: 'row-settled',
      verb: VERBS[batch.verb[row]!]!,
      pages: { first: batch.page[row]!, count: batch.span[row]! },
      wakes: !(batch.flags[row]! & FLAG.noWake),
      outcome: batch.outcomeOf(row),
      done: batch.done[row]!,
    });
  }
}
