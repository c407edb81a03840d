import { type PageIndex, hex } from './address.js';
import { type FaultPort } from './backend.js';
import { DemandPagingError } from './error.js';
import { type OutsideFault } from './fault.js';
import { type ResolverEvent, type OutsideAnswer } from './resolver-protocol.js';
import { type PagerPolicy } from './policy.js';
import { COUNTER, type Counters } from './statistics.js';

export interface OutsideFaultsOptions {
  readonly port: FaultPort;
  readonly policy: PagerPolicy;
  readonly counters: Counters;
  notify(event: ResolverEvent): void;
  /** The address is a page's by now. */
  again(fault: OutsideFault, page: PageIndex): void;
  stop(error: DemandPagingError, left?: 'blocked'): void;
}

const ESRCH = 3;

/**
 * Accesses that wait at addresses outside the layout, and their answers.
 *
 * A fault at the new place of moved memory is read ahead of the move's event. It is not mistaken for one
 * outside: until that event is read the kernel answers EAGAIN, and then the address is looked up again.
 */
export class OutsideFaults {
  readonly #o: OutsideFaultsOptions;
  #waiting: OutsideFault[] = [];

  constructor(options: OutsideFaultsOptions) {
    this.#o = options;
  }

  /** Some are not answered yet. */
  get waiting(): boolean {
    return this.#waiting.length > 0;
  }

  met(fault: OutsideFault): void {
    this.#waiting.push(fault);
  }

  /**
   * Answers those that can be answered now. `stopped`: the pager serves no access any more, so all are
   * refused.
   */
  answer(stopped: boolean): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (const fault of all) this.#answerOne(fault, stopped);
  }

  #answerOne(fault: OutsideFault, stopped: boolean): void {
    const { port, policy, counters } = this.#o;
    const page = port.locate?.(fault.address) ?? -1;
    if (page >= 0) return this.#o.again(fault, page);
    const zeros = policy.onOutsideFault === 'zeros' && !stopped;
    const outcome = port.answerOutside?.(fault, zeros ? 'zeros' : 'poison') ?? 'refused';
    if (outcome === 'again') return void this.#waiting.push(fault);
    counters.add(COUNTER.outsideFaults);
    if (outcome === 'gone') {
      const message = 'the process whose memory is served has ended';
      return this.#o.stop(new DemandPagingError('MEMORY_GONE', message, { errno: ESRCH }));
    }
    const answered = outcome === 'installed';
    const protection = fault.kind === 'write-protect' || fault.kind === 'rwp';
    const answer: OutsideAnswer = !answered ? 'waits' : protection ? 'released' : zeros ? 'zeros' : 'refused';
    this.#o.notify({ kind: 'outside-fault', fault, answer });
    if (!stopped && !answered) this.#o.stop(strayFault(fault), 'blocked');
    else if (!stopped && policy.onOutsideFault === 'stop') this.#o.stop(strayFault(fault));
  }
}

function strayFault({ address }: OutsideFault): DemandPagingError {
  return new DemandPagingError(
    'BAD_RANGE',
    `a fault at ${hex(address)}, outside every region that is served`,
    {
      range: { start: BigInt(address), length: 1n },
      hint: "Name this memory in the layout, or choose what it is answered with by the policy's onOutsideFault",
    },
  );
}
