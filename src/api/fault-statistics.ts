import { type AccessClass, SITE_NAMES, classOf } from './access.js';
import { type FaultBatch, WRITE } from './fault.js';
import { type ResolverEvent } from './resolver-protocol.js';
import { COUNTER, type Counters } from './statistics.js';

/** By row kind. */
const FAULT_COUNTERS = [
  COUNTER.missingFaults,
  COUNTER.minorFaults,
  COUNTER.writeProtectFaults,
  COUNTER.rwpFaults,
];

/** Counts faults by kind and by access class, and reports them to listeners. */
export class FaultStatistics {
  readonly #counters: Counters;
  readonly #notify: (event: ResolverEvent) => void;
  readonly #threads = new Map<number, { readonly class: AccessClass; readonly vcpu: number | undefined }>();
  /** There is a listener. */
  reports = false;

  constructor(counters: Counters, notify: (event: ResolverEvent) => void) {
    this.#counters = counters;
    this.#notify = notify;
  }

  /** Faults of this kernel thread are of this class. */
  name(thread: number, accessClass: AccessClass, vcpu: number | undefined): void {
    this.#threads.set(thread, { class: accessClass, vcpu });
  }

  count(batch: FaultBatch, row: number): void {
    const counters = this.#counters;
    counters.add(FAULT_COUNTERS[batch.kind[row]!]!);
    if (batch.write[row] === WRITE.yes) counters.add(COUNTER.writeFaults);
    const site = SITE_NAMES[batch.site[row]!];
    const known = this.#threads.size === 0 ? undefined : this.#threads.get(batch.thread[row]!);
    // Only a vCPU's exit names its vCPU.
    const accessClass = site ? classOf(site) : batch.isVcpus(row) ? 'vcpu' : known?.class;
    counters.add(accessClass ? COUNTER[`${accessClass}Faults`] : COUNTER.unattributedFaults);
    if (!this.reports) return;
    const fault = batch.fault(row);
    this.#notify({
      kind: 'fault',
      fault: { ...fault, class: accessClass, vcpu: fault.vcpu ?? known?.vcpu },
    });
  }
}
