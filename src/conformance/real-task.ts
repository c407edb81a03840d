import { type AccessSite, type PageIndex } from '../api/index.js';
import { type Contents } from './contents.js';
import { type AccessRef, type OperationRef } from './failure.js';
import { type Task, type Touch } from './environment.js';
import { type RealAccessor, type RealResult } from './subject.js';
import { type TraceEvent } from './trace.js';

/** A real environment's time and trace. */
export interface RealClock {
  /** Milliseconds. */
  readonly moment: number;
  readonly contents: Contents;
  note(event: TraceEvent): void;
}

/** A task of a real environment: a promise, seen from outside. */
export class RealTask implements Task<OperationRef> {
  settled = false;
  error: string | undefined;
  ended = Infinity;
  readonly started: number;

  constructor(
    readonly ref: OperationRef,
    clock: RealClock,
    promise: Promise<unknown>,
    codeOf: (error: unknown) => string,
  ) {
    this.started = clock.moment;
    const actor = { kind: 'vmm' } as const;
    clock.note({ actor, kind: 'operation-starts', operation: ref });
    const over = (error?: string): void => {
      this.settled = true;
      this.error = error;
      this.ended = clock.moment;
      clock.note({ actor, kind: 'operation-ends', operation: ref, error });
    };
    promise.then(
      () => over(),
      (thrown: unknown) => over(codeOf(thrown)),
    );
  }
}

/** What a touch of a real environment is made of. */
export interface RealTouchParts {
  readonly site: AccessSite;
  readonly page: PageIndex;
  readonly offset: number;
  readonly write: boolean;
  readonly clock: RealClock;
  readonly accessor: Promise<RealAccessor>;
  readonly access: (accessor: RealAccessor) => Promise<RealResult>;
  /** It is over, and the accessor is free again. Not called for one that was killed. */
  readonly over: (accessor: RealAccessor) => void;
  /** The accessor itself failed, which says nothing about what is tested. */
  readonly broken: (error: unknown) => void;
}

/** An access by a real thread or process. */
export class RealTouch implements Touch {
  readonly ref: AccessRef;
  readonly site: AccessSite;
  readonly page: PageIndex;
  readonly offset: number;
  readonly started: number;
  /** Resolves when it has ended, however. */
  readonly through: Promise<void>;
  readonly exits = undefined;
  ended = Infinity;
  end: Touch['end'];
  errno: number | undefined;
  bytes = new Uint8Array(0);
  readonly #parts: RealTouchParts;
  #killed = false;

  constructor(number: number, parts: RealTouchParts) {
    const { site, page, offset, clock, write } = parts;
    this.#parts = parts;
    this.site = site;
    this.page = page;
    this.offset = offset;
    this.ref = { accessor: { kind: 'accessor', site, number }, page, offset };
    this.started = clock.moment;
    clock.note({ actor: this.ref.accessor, kind: 'access-starts', write, page });
    this.through = this.#run();
  }

  get settled(): boolean {
    return this.end !== undefined;
  }

  get error(): string | undefined {
    return this.end === 'done' ? undefined : this.end;
  }

  kill(): void {
    this.#killed = true;
    // It ends with an error, or went through before: both are ends.
    void this.#parts.accessor.then((accessor) => accessor.stop());
  }

  async #run(): Promise<void> {
    const { accessor, access, over, broken } = this.#parts;
    try {
      const used = await accessor;
      const result = await access(used);
      if (result.ok) this.bytes = new Uint8Array(result.bytes);
      else this.errno = result.errno;
      this.#settle(result.ok ? 'done' : result.injected ? 'injected' : 'errored');
      if (!this.#killed) over(used);
    } catch (error) {
      if (!this.#killed) broken(error);
      this.#settle('killed', this.#killed ? undefined : String(error));
    }
  }

  #settle(end: NonNullable<Touch['end']>, why?: string): void {
    const { clock, page, offset, write } = this.#parts;
    this.end = end;
    this.ended = clock.moment;
    const actor = this.ref.accessor;
    const seen = write || end !== 'done' ? undefined : clock.contents.recognise(this.bytes, page, offset);
    const { errno } = this;
    clock.note({ actor, kind: 'access-ends', end, write, errno, why, page, ...(seen && { seen }) });
  }
}
