import {
  type Access,
  drive,
  type Gpa,
  type GpaRange,
  hex,
  type ProgramMemory,
  WINDOW_BYTES,
} from '../api/index.js';
import { GICD, GICR, GITS, operationOf, stateOf, type Vgic } from '../arm64/index.js';
import { type ItsAccess, type ItsResult } from './restore-job.js';
import { newVgic, type SavedVm } from './saved-vm.js';
import { StructureMap } from './structure-map.js';

type Step = SavedVm['restore'][number];
type Operation = Exclude<Step, { op: 'its_get' | 'state' }>;
type Touch = readonly [page: bigint, kind: 'R' | 'W'];

/**
 * Restores the GIC and the ITS of a saved VM through guest memory whose pages may be missing, as the
 * recorded kernel did it, and notes every access and every difference.
 */
export class ItsRestore {
  readonly #vm: SavedVm;
  readonly #memory: ProgramMemory;
  readonly #vgic: Vgic;
  readonly #accesses: Mutable<ItsAccess>[] = [];
  readonly #differences: string[] = [];
  #structures: StructureMap | undefined;
  #order: ItsResult['order'];

  constructor(vm: SavedVm, memory: ProgramMemory) {
    this.#vm = vm;
    this.#memory = this.#timed(memory);
    this.#vgic = newVgic(vm.vector);
  }

  /** Rejects with the memory's error when a page is unavailable. */
  async run(): Promise<ItsResult> {
    const started = performance.now();
    for (const step of this.#vm.restore) await this.#step(step);
    const { lpis, ites } = stateOf(this.#vgic);
    return {
      id: this.#vm.vector.id,
      accesses: this.#accesses,
      elapsed_ms: performance.now() - started,
      lpis: lpis.length,
      entries: ites.length,
      order: this.#order,
      differences: this.#differences,
    };
  }

  async #step(step: Step): Promise<void> {
    if (step.op === 'state') {
      const { lpis, ites } = stateOf(this.#vgic);
      this.#compare('the LPIs', step.lpis, lpis);
      this.#compare('the entries', step.ites, ites);
    } else if (step.op === 'its_get') {
      this.#compare('GITS', step.val, this.#vgic.readItsRegister(0, Number(step.off)).value);
    } else await this.#operate(step);
  }

  async #operate(step: Operation): Promise<void> {
    // Registers name the tables, and each operation may have changed them.
    this.#structures = new StructureMap(this.#vgic, this.#vm.vector.vm.vcpu_ids.length);
    const before = this.#accesses.length;
    const status = await drive(operationOf(this.#vgic, step), this.#memory, {
      trace: (access) => this.#note(step.op, access),
    });
    this.#compare(`the result of ${step.op}`, step.ret, status);
    for (const [name, value] of Object.entries(step.regs ?? {}))
      this.#compare(name, value, this.#register(name));
    const accesses = this.#accesses.slice(before);
    // A table is often read before it is announced whole: names are known for certain in the end.
    for (const access of accesses) access.structure = this.#structures.nameOf(access.page as Gpa);
    if (step.faults) this.#compareOrder(step.faults, accesses);
  }

  #note(step: string, access: Access): void {
    this.#structures!.trace(access);
    const { ask, missed } = access;
    if (ask.ask !== 'read' && ask.ask !== 'write') return;
    const address = ask.ask === 'read' ? ask.page : ask.gpa;
    this.#accesses.push({
      step,
      page: address - (address % BigInt(WINDOW_BYTES)),
      kind: ask.ask === 'read' ? 'R' : 'W',
      structure: '',
      missed,
      wait_ms: 0,
    });
  }

  /** The memory, with what its missing pages cost added to the access that waits. */
  #timed(memory: ProgramMemory): ProgramMemory {
    return {
      layout: memory.layout,
      isPresent: (range) => memory.isPresent(range),
      readSync: (address, length) => memory.readSync(address, length),
      writeSync: (address, bytes) => memory.writeSync(address, bytes),
      hint: () => {}, // the accesses themselves are to be seen missing
      bring: async (ranges: readonly GpaRange[]) => {
        const before = performance.now();
        await memory.bring(ranges);
        this.#accesses.at(-1)!.wait_ms += performance.now() - before;
      },
    };
  }

  /** The kernel's faults are its first touches, since it had every page missing. */
  #compareOrder(recorded: readonly Touch[], accesses: readonly ItsAccess[]): void {
    const seen = new Set<bigint>();
    const touches = accesses.filter(({ page }) => !seen.has(page) && seen.add(page));
    let agree = 0;
    while (agree < recorded.length && agree < touches.length) {
      const [page, kind] = recorded[agree]!;
      if (touches[agree]!.page !== page || touches[agree]!.kind !== kind) break;
      agree++;
    }
    this.#order = { agree, recorded: recorded.length };
    if (agree === recorded.length && agree === touches.length) return;
    const [wanted, got] = [recorded[agree]?.[0], touches[agree]?.page];
    const name = (page: bigint | undefined): string => (page === undefined ? 'nothing more' : hex(page));
    this.#differences.push(`touch ${agree + 1} is ${name(got)}, the kernel's was ${name(wanted)}`);
  }

  #register(name: string): bigint | undefined {
    const [, block, vcpu, register] = /^(GITS|GICD|GICR(\d+))_(\w+)$/.exec(name) ?? [];
    if (block === 'GITS') return this.#vgic.readItsRegister(0, GITS[register as keyof typeof GITS]).value;
    if (block === 'GICD') return this.#vgic.readDistributorRegister(GICD[register as keyof typeof GICD]);
    if (vcpu === undefined) return undefined;
    return this.#vgic.readRedistributorRegister(Number(vcpu), GICR[register as keyof typeof GICR]);
  }

  #compare(what: string, expected: unknown, actual: unknown): void {
    const [wanted, got] = [show(expected), show(actual)];
    if (wanted !== got) this.#differences.push(`${what}: ${got}, recorded ${wanted}`);
  }
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

const show = (value: unknown): string =>
  JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? hex(item) : item)) ?? 'nothing';

/** The words that restoring leaves in guest memory, by address. */
export type RestoredWords = ReadonlyMap<Gpa, bigint>;
