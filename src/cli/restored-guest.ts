import { type MemoryLayout } from '../api/index.js';
import { type Accessor } from '../accessors/index.js';
import { GuestMachine, type GuestSite, probeGuest, VcpuAccessor } from '../guests/index.js';

/** Sites of vCPUs that go through any page: not every page can be executed or is a page table. */
const SITES = ['vcpu-load', 'vcpu-atomic'] as const satisfies readonly GuestSite[];

/**
 * A virtual machine over the memory that is restored, whose vCPUs access it as a guest that goes on would. They run code
 * of this program's, whatever the guest was: they reach its memory from where a guest does.
 */
export class RestoredGuest {
  /** None where there is no KVM, or one of another architecture. */
  readonly sites: readonly GuestSite[] = probeGuest({ backend: 'memslot-hole' }).met ? SITES : [];
  #machine: GuestMachine | undefined;

  /** Precondition: the layout is mapped, and stays so until {@link close}. */
  startAccessor(site: GuestSite, layout: MemoryLayout): Promise<Accessor> {
    return VcpuAccessor.start(site, () => ({
      machine: this.#over(layout),
      exitHandlerToken: () => undefined,
      effectOf: () => 'blocks',
      publish: () => Promise.resolve(),
      kernel: 'string-io',
    }));
  }

  /** Precondition: the accessors have stopped. */
  close(): void {
    this.#machine?.[Symbol.dispose]();
    this.#machine = undefined;
  }

  #over(layout: MemoryLayout): GuestMachine {
    if (!this.#machine) {
      this.#machine = new GuestMachine(layout, 64);
      this.#machine.showMemory(layout);
    }
    return this.#machine;
  }
}
