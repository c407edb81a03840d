import { type AccessSite, MemoryLayout, ResolutionBatch } from '../../../src/api/index.js';
import { memslotHole, type UapiAttachment, vacatedSlot } from '../../../src/prototypes/index.js';
import { region } from '../userfaultfd/scene.js';
import { AT, PAGES, type Step, type World } from './kvm-history.js';

const WRITES: readonly AccessSite[] = ['vcpu-store', 'vmm-store'];

/** A history on the model of a slot strategy. */
export class UapiWorld implements World {
  readonly #attachment: UapiAttachment;

  private constructor(attachment: UapiAttachment) {
    this.#attachment = attachment;
  }

  static async open(strategy: 'vacated-slot' | 'memslot-hole'): Promise<UapiWorld> {
    // The guest's code is x86's.
    const backend =
      strategy === 'vacated-slot' ? vacatedSlot.backend() : memslotHole.backend({ atomics: 'exit' });
    return new UapiWorld(await backend.attach(new MemoryLayout([region(PAGES)])));
  }

  step(step: Step): string {
    switch (step.do) {
      case 'install':
        return this.#install(step.page, step.value);
      case 'discard-refetch': {
        const pages = { first: step.page, count: 1 };
        this.#attachment.stepping.clearPresence(pages);
        const dropping = this.#attachment.kernel.discard(pages);
        while (!dropping.ended) dropping.step();
        return 'discarded';
      }
      case 'access':
        return this.#access(step);
    }
  }

  close(): Promise<void> {
    return this.#attachment.close();
  }

  #install(page: number, value: number): string {
    const { port } = this.#attachment;
    port.staging.fill(0);
    port.staging[AT.value] = value;
    const rows = new ResolutionBatch(1);
    rows.push({ verb: 'copy', pages: { first: page, count: 1 }, from: 0 });
    port.resolve(rows);
    return rows.outcomeOf(0);
  }

  #access({ site, page, value }: Extract<Step, { do: 'access' }>): string {
    const what = WRITES.includes(site) ? { bytes: Uint8Array.of(value) } : { length: 1 };
    const access = this.#attachment.kernel.access({ site, page, offset: AT.value, ...what });
    access.step();
    const { state } = access;
    const read = access.bytes[0]!;
    if (state === 'exited') access.kill();
    if (state !== 'done') return state;
    if (site === 'vcpu-atomic') this.#store(page, read + 1);
    return access.write || site === 'vcpu-fetch' || site === 'kernel-copy' ? 'done' : `read ${read}`;
  }

  /** The second half of an exchange-and-add, whose first half has read. */
  #store(page: number, value: number): void {
    const access = this.#attachment.kernel.access({
      site: 'vcpu-atomic',
      page,
      offset: AT.value,
      bytes: Uint8Array.of(value & 0xff),
    });
    access.step();
  }
}
