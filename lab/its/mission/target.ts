import { type Backend, fileOffset, gpa, openPager, type Pager, type PagerEvents } from 'demand-paging';
import { beginRestore, type BeforeTables, type RestoreAction, type SavedVgic } from 'demand-paging/arm64';
import { composite, type KvmBackend, openVcpuExitHandler } from 'demand-paging/backends/composite';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { arm64CoreRegister, duplicate, type Kvm, KVM_EXIT } from 'demand-paging/linux';
import { GicVm } from '../gic-vm.js';
import {
  DATA_PAGES,
  DONE,
  GICD_BASE,
  GICR_BASE,
  ITS_BASE,
  PAGE,
  PLACE,
  RAM,
  RAM_BYTES,
  sumOf,
  VCPU_IDS,
} from './guest.js';
import { type VcpuEnd, type VcpuThread } from './vcpu-thread.js';

/** How missing pages are noticed. `error`: they are not; every access to one fails at once. */
export type Mediation = 'vcpu-exits' | 'userfaultfd' | 'error';

/** Whether vCPU faults can be KVM's own on this kernel: exits of KVM_RUN rather than waits inside it. */
export function hasVcpuExits(kvm: Kvm): boolean {
  using vm = kvm.createVm();
  return vm.sharesGuestMemfd;
}

/** A VM into which a saved one is restored, with every page missing at first. */
export class Target {
  readonly gic: GicVm;
  readonly pager: Pager;
  /** Carries out what may reach guest memory through KVM. */
  readonly during: <T>(body: () => T) => T;
  readonly #kvm: Kvm;
  readonly #backend: Backend | KvmBackend;
  readonly #closeHandler: () => void;
  /** Why the pager has stopped. */
  #stopped: Error | undefined;

  private constructor(kvm: Kvm, gic: GicVm, backend: Backend | KvmBackend, pager: Pager) {
    this.gic = gic;
    this.pager = pager;
    this.#kvm = kvm;
    this.#backend = backend;
    const handler =
      'exitHandlerToken' in backend
        ? openVcpuExitHandler(backend.exitHandlerToken(VCPU_IDS.length))
        : undefined;
    this.during = (body) => (handler ? handler.during(body) : body());
    this.#closeHandler = () => handler?.close();
    pager.on('stopped', (error) => (this.#stopped = error));
  }

  static async open(
    kvm: Kvm,
    mediation: Mediation,
    image: SharedArrayBuffer,
    latency_ms: number,
  ): Promise<Target> {
    const spec = { vcpuIds: VCPU_IDS, itsBases: [undefined], gicdBase: GICD_BASE, gicrBase: GICR_BASE };
    const gic = new GicVm(kvm, spec, []);
    // An exit handler for each vCPU and one for the thread of the device ioctls. Slot verification would need
    // another vCPU, which can no longer be created.
    const backend =
      mediation === 'vcpu-exits'
        ? composite({ vm: gic.vm.fd, vcpus: VCPU_IDS.length + 1, verifySlots: false })
        : userfaultfd({ sigbus: mediation === 'error' });
    const pager = await openPager({
      backend,
      regions: [
        {
          gpa: gpa(RAM),
          length: BigInt(RAM_BYTES),
          sourceOffset: fileOffset(0),
          memory: 'anonymous',
          pageSize: PAGE,
        },
      ],
      source: {
        module: new URL('./slow-source.js', import.meta.url).href,
        export: 'openSlowSource',
        options: { image, latency_ms },
      },
      // Where every access fails until its page was asked for, no class is served.
      needs: mediation === 'error' ? [] : ['vcpu'],
      // A page a fetch: what one costs is what is to be seen.
      policy: { faultAroundPages: 1, prefetchPages: 1 },
    });
    if (mediation !== 'vcpu-exits') {
      const userspace = Number(pager.layout.regions[0]!.hva);
      gic.vm.setSlot({ slot: 0, gpa: Number(RAM), length: RAM_BYTES, userspace });
    }
    return new Target(kvm, gic, backend, pager);
  }

  /**
   * Runs every vCPU over its pages, each on its thread, until it says that it is done; none is in KVM_RUN
   * afterwards.
   */
  async runVcpus(threads: readonly VcpuThread[]): Promise<{ readonly pageExits: number }> {
    const ends = await Promise.all(VCPU_IDS.map((_, vcpu) => this.#runVcpu(vcpu, threads[vcpu]!)));
    for (const [vcpu, { handled, failure, exitReason, errno, x4 }] of ends.entries()) {
      const right = handled === 'unhandled' && exitReason === KVM_EXIT.MMIO && x4 === sumOf(vcpu);
      if (!right)
        throw new Error(
          `vCPU ${vcpu}: ${handled} ${failure ?? ''}, exit ${exitReason}, errno ${errno}, sum 0x${x4.toString(16)}`,
          { cause: this.#stopped },
        );
    }
    return { pageExits: ends.reduce((sum, { pageExits }) => sum + pageExits, 0) };
  }

  /**
   * Puts the saved registers back in the documented order, up to the tables. `restoreTables` carries out
   * KVM_DEV_ARM_ITS_RESTORE_TABLES.
   */
  async restoreRegisters(
    { distributor, redistributors, itses }: SavedVgic,
    restoreTables: (issue: () => number) => Promise<void> | void,
  ): Promise<BeforeTables> {
    const afterDistributor = await beginRestore((action) =>
      this.#issue(action, restoreTables),
    ).restoreDistributor(distributor);
    const afterRedistributors = await afterDistributor.restoreRedistributors(redistributors);
    return await afterRedistributors.restoreItsRegisters(itses[0]!);
  }

  /**
   * The pages that are asked for, in order, from when this resolves until the function it gives is called.
   */
  async listen(): Promise<() => Promise<readonly bigint[]>> {
    const faults: bigint[] = [];
    const note: PagerEvents['fault'] = (fault) => void faults.push(RAM + BigInt(fault.page * PAGE));
    this.pager.on('fault', note);
    await this.#roundTrip(); // the resolver reports faults only once it knows of a listener
    return async () => {
      await this.#roundTrip();
      this.pager.off('fault', note);
      return faults;
    };
  }

  /**
   * The resolver takes commands in order, and answers after the notices that it sent before. Costs no page:
   * it is there.
   */
  async #roundTrip(): Promise<void> {
    await this.pager.ensure([{ start: gpa(PLACE.code), length: 1n }]);
  }

  async close(): Promise<void> {
    this.#closeHandler();
    this.gic.close();
    await this.pager.close({ missing: 'leave' });
  }

  async #runVcpu(vcpu: number, thread: VcpuThread): Promise<VcpuEnd> {
    const { vcpus } = this.gic;
    const set = (name: string, value: bigint): void =>
      vcpus[vcpu]!.setRegister(arm64CoreRegister(name), value);
    set('pc', PLACE.code);
    set('x0', PLACE.data(vcpu));
    set('x1', BigInt(DATA_PAGES));
    set('x2', DONE);
    set('x4', 0n);
    return await thread.run({
      descriptor: duplicate(vcpus[vcpu]!.fd),
      run_bytes: this.#kvm.run_bytes,
      token: 'exitHandlerToken' in this.#backend ? this.#backend.exitHandlerToken(vcpu) : undefined,
    });
  }

  async #issue(
    action: RestoreAction,
    restoreTables: (issue: () => number) => Promise<void> | void,
  ): Promise<void> {
    const { gic } = this.gic;
    if (action.group === 'CTRL') return await restoreTables(() => this.during(() => gic.tryCommand(action)));
    return this.during(() => gic.restoreIssuer(action));
  }
}

/** Where an MSI is written to. */
export const DOORBELL = ITS_BASE + 0x1_0040n;
