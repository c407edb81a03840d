import { GICD, GICR, GITS } from '../../src/arm64/registers.js';
import { type Program } from '../../src/api/index.js';
import { type KernelQuirks } from '../../src/arm64/index.js';
import { VectorMemory } from '../../src/arm64/vector-memory.js';
import { Vgic } from '../../src/arm64/vgic.js';
import { type Effects } from '../../lab/its/guest-ram.js';
import { type GicSpec } from '../../lab/its/gic-vm.js';
import { type CreateGic, type RecordedGic, type RecordedRam } from '../../lab/its/recorder.js';

/** Guest memory for a recording whose kernel is the twin. */
export class TwinRam implements RecordedRam {
  #memory = new VectorMemory([]);
  slots: RecordedRam['slots'] = [];

  reset(slots: Parameters<RecordedRam['reset']>[0]): void {
    this.#memory = new VectorMemory(slots);
  }
  setWord(gpa: bigint, word: bigint): void {
    this.#memory.setWord(gpa, word);
  }
  missPage(gpa: bigint): void {
    this.#memory.missPage(gpa);
  }
  protectPage(gpa: bigint): void {
    this.#memory.protectPage(gpa);
  }
  fillPage(gpa: bigint): void {
    this.#memory.fillPage(gpa);
  }
  observe<R>(operation: () => R): { readonly result: R; readonly effects: Effects } {
    this.#memory.missAll();
    const result = operation();
    const { touches, changed } = this.#memory.takeEffects();
    return { result, effects: { faults: touches, changed } };
  }
  run<R>(program: Program<R>): R {
    return this.#memory.run(program);
  }
}

/** The twin in the place of a real KVM. */
export const twinGic =
  (ram: TwinRam, quirks: KernelQuirks): CreateGic =>
  (spec) =>
    new TwinGic(ram, spec, quirks);

class TwinGic implements RecordedGic {
  readonly #vgic: Vgic;

  constructor(
    private readonly ram: TwinRam,
    private readonly spec: GicSpec,
    quirks: KernelQuirks,
  ) {
    const { vcpuIds, itsBases } = spec;
    this.#vgic = new Vgic({ vcpuIds, itsBases, quirks, mode: 'kvm' });
  }

  setIts(its: number, offset: bigint, value: bigint): number {
    return this.ram.run(this.#vgic.writeItsRegister(its, Number(offset), value));
  }
  getIts(its: number, offset: bigint): { status: number; value: bigint } {
    return this.#vgic.readItsRegister(its, Number(offset));
  }
  setRedistributor(vcpu: number, offset: bigint, value: bigint, size: 4 | 8): number {
    return this.ram.run(this.#vgic.writeRedistributorRegister(vcpu, Number(offset), value, size));
  }
  setDistributor(offset: bigint, value: bigint): number {
    return this.#vgic.writeDistributorRegister(Number(offset), value);
  }
  itsControl(its: number, attribute: number): number {
    return this.ram.run(this.#vgic.itsControl(its, attribute));
  }
  savePending(): number {
    return this.ram.run(this.#vgic.savePendingTables());
  }
  signalMsi(address: bigint, flags: number, device: number, event: number): number {
    return this.#vgic.signalMsi({ address, flags, device, event });
  }
  registers(): Map<string, bigint> {
    const all = new Map<string, bigint>();
    for (const its of this.spec.itsBases.keys())
      for (const name of [
        'CTLR',
        'IIDR',
        'TYPER',
        'CBASER',
        'CWRITER',
        'CREADR',
        'BASER0',
        'BASER1',
      ] as const)
        all.set(`GITS${its || ''}_${name}`, this.#vgic.readItsRegister(its, GITS[name]).value);
    for (const vcpu of this.spec.vcpuIds.keys())
      for (const name of ['CTLR', 'TYPER', 'PROPBASER', 'PENDBASER'] as const)
        all.set(`GICR${vcpu}_${name}`, this.#vgic.readRedistributorRegister(vcpu, GICR[name]));
    all.set('GICD_CTLR', this.#vgic.readDistributorRegister(GICD.CTLR));
    return all;
  }
  close(): void {}
}
