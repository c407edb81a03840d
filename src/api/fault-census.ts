import { type AccessClass, SITE_NAMES, classOf } from './access.js';
import { type FaultBatch, WRITE } from './fault.js';
import { type Notice } from './notice.js';
import { COUNTER, type Counters } from './statistics.js';

/** By row kind. */
const FAULT_COUNTERS = [
  COUNTER.missingFaults,
  COUNTER.minorFaults,
  COUNTER.writeProtectFaults,
  COUNTER.rwpFaults,
];

/** Counts faults by kind and by whose they are, and reports them to whoever listens. */
export class FaultCensus {
  readonly #counters: Counters;
  readonly #notify: (notice: Notice) => void;
  readonly #threads = new Map<number, { readonly class: AccessClass; readonly vcpu: number | undefined }>();
  /** Somebody listens. */
  reports = false;

  constructor(counters: Counters, notify: (notice: Notice) => void) {
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
