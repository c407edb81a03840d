import { DemandPagingError } from '../api/error.js';
import { type MemoryLayout } from '../api/layout.js';
import { Kvm, type KvmVcpu, type KvmVm, mapMemory, type Mapping } from '../linux/index.js';
import { type OwnMemory, ownMemory } from './own-memory.js';

/** Memslots below this number are the VMM's; those of backends begin there. */
const OWN_SLOT = 0;

/** A vCPU that makes accesses, one at a time. */
export interface GuestVcpu {
  readonly index: number;
  readonly vcpu: KvmVcpu;
}

/**
 * A virtual machine whose vCPUs access a layout's memory on command. The memslots of the layout are created
 * by a backend or by {@link showMemory}.
 */
export class GuestMachine implements Disposable {
  readonly vm: KvmVm;
  /** The largest number of vCPUs. */
  readonly vcpus: number;
  readonly #kvm: Kvm;
  readonly #layout: MemoryLayout;
  readonly #space: OwnMemory;
  readonly #memory: Mapping;
  readonly #idle: GuestVcpu[] = [];
  readonly #made: KvmVcpu[] = [];
  readonly #indices = new Set<number>();
  #nextId = 0;
  #busy = 0;
  #closing = false;

  /** Errors: NO_DEVICE, NO_PERMISSION, KERNEL; RangeError for a layout beyond 256 GiB. */
  constructor(layout: MemoryLayout, vcpus = 8) {
    this.vcpus = vcpus;
    this.#layout = layout;
    this.#space = ownMemory(layout, vcpus);
    this.#kvm = Kvm.open();
    this.vm = this.#kvm.createVm();
    this.#space.prepare(this.vm);
    const { base, length } = this.#space;
    this.#memory = mapMemory({ kind: 'anonymous', length });
    this.#space.write(this.#memory.bytes());
    this.vm.setSlot({ slot: OWN_SLOT, gpa: base, length, userspace: this.#memory.address });
  }

  /** Where the guest's own memory lies in this process. */
  get own(): number {
    return this.#memory.address;
  }

  /** For a backend that creates no memslots: creates them over the layout's mapped memory. */
  showMemory({ regions }: MemoryLayout): void {
    regions.forEach(({ gpa, length, hva }, index) =>
      this.vm.setSlot({
        slot: OWN_SLOT + 1 + index,
        gpa: Number(gpa),
        length: Number(length),
        userspace: Number(hva),
      }),
    );
  }

  /** A vCPU that no other accessor uses now. Errors: CLOSED; RangeError if all are in use. */
  take(): GuestVcpu {
    if (this.#closing) throw new DemandPagingError('CLOSED', 'the machine was closed');
    this.#busy++;
    const idle = this.#idle.pop();
    if (idle) return idle;
    return this.#make(this.#freeIndex());
  }

  /**
   * `spent`: the vCPU was left in the middle of an access and cannot be used again. `lost`: its thread ended,
   * too, and did not close its exit handler: the index is not used again.
   */
  giveBack(taken: GuestVcpu, how: 'whole' | 'spent' | 'lost'): void {
    this.#busy--;
    if (how === 'spent') this.#indices.delete(taken.index);
    else if (how === 'whole') this.#idle.push(taken);
    if (this.#closing && this.#busy === 0) this.#close();
  }

  /** Releases everything once no vCPU is in use. */
  [Symbol.dispose](): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#busy === 0) this.#close();
  }

  #freeIndex(): number {
    for (let index = 0; index < this.vcpus; index++) if (!this.#indices.has(index)) return index;
    this.#busy--;
    throw new RangeError(`all ${this.vcpus} vCPUs are in use`);
  }

  #make(index: number): GuestVcpu {
    this.#indices.add(index);
    const vcpu = this.vm.createVcpu(this.#nextId++);
    this.#made.push(vcpu);
    this.#space.start(vcpu, this.vm);
    return { index, vcpu };
  }

  #close(): void {
    for (const vcpu of this.#made) vcpu.close();
    this.vm.close();
    this.#kvm.close();
    this.#memory.dispose();
  }

  /** The layout that the machine was created for. */
  get layout(): MemoryLayout {
    return this.#layout;
  }
}
