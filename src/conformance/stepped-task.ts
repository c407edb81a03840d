import { type AccessSite, type PageIndex } from '../api/index.js';
import { type AccessRef, type OperationRef } from './failure.js';
import { type Task, type Touch } from './environment.js';
import { type SteppedAccess } from './subject.js';

/** A task of a deterministic environment. */
export class SteppedTask implements Task<OperationRef> {
  settled = false;
  error: string | undefined;
  ended = Infinity;

  constructor(
    readonly ref: OperationRef,
    readonly started: number,
  ) {}

  settle(moment: number, error?: string): void {
    if (this.settled) return;
    this.settled = true;
    this.ended = moment;
    this.error = error;
  }
}

const ENDS: Readonly<Record<string, Touch['end']>> = {
  done: 'done',
  errored: 'errored',
  injected: 'injected',
  killed: 'killed',
};

/** An access of a deterministic environment. */
export class SteppedTouch implements Touch {
  ended = Infinity;

  constructor(
    readonly site: AccessSite,
    readonly page: PageIndex,
    readonly offset: number,
    readonly started: number,
    readonly access: SteppedAccess,
    readonly write: boolean,
  ) {}

  get ref(): AccessRef {
    const { page, offset } = this;
    return { accessor: this.access.actor, page, offset };
  }

  get settled(): boolean {
    return this.access.ended;
  }

  get error(): string | undefined {
    return this.end === 'done' ? undefined : this.end;
  }

  get end(): Touch['end'] {
    return this.access.ended ? ENDS[this.access.state] : undefined;
  }

  get errno(): number | undefined {
    return this.access.errno;
  }

  get exits(): number {
    return this.access.exits;
  }

  get bytes(): Uint8Array {
    return this.access.bytes;
  }

  kill(): void {
    this.access.kill();
  }
}
