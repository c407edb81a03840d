import { KERNELS, type KernelQuirks } from './kernel-quirks.js';
import { GICD, GICR, GITS } from './registers.js';
import type { Vector, VectorStep } from './vector.js';
import { operationOf, queueWords, stateOf } from './vector-operation.js';
import { VectorMemory } from './vector-memory.js';
import { Vgic } from './vgic.js';

/** Where a vector and this implementation part. */
export interface ReplayDifference {
  /** Index of the step. */
  readonly step: number;
  readonly op: VectorStep['op'];
  /** `ret`, `mem`, `faults`, `msi 3`, `lpis`, `ites`, `val`, or a register's name. */
  readonly what: string;
  readonly expected: string;
  readonly actual: string;
}

/** What replaying a vector came to: everything agreed, or the first difference. */
export type ReplayResult =
  | { readonly kind: 'ok'; readonly id: string; readonly steps: number }
  | { readonly kind: 'different'; readonly id: string; readonly first: ReplayDifference };

export interface ReplayOptions {
  /** Default: those of the kernel that the vector names. */
  readonly quirks?: KernelQuirks;
}

/**
 * Replays a vector on a software GIC in `kvm` mode and compares return values, every register (one
 * that is not listed must be unchanged), changed memory words, first touches in order, MSI results
 * and internal state. Pure: touches no file. Never throws for a difference.
 */
export function replayVector(vector: Vector, options: ReplayOptions = {}): ReplayResult {
  const replay = new Replay(vector, options.quirks ?? KERNELS[vector.kernel ?? '7.3']);
  for (const [step, recorded] of vector.steps.entries()) {
    const found = replay.step(recorded);
    if (found !== undefined) {
      return { kind: 'different', id: vector.id, first: { step, op: recorded.op, ...found } };
    }
  }
  return { kind: 'ok', id: vector.id, steps: vector.steps.length };
}

const ITS_REGISTERS = ['CTLR', 'IIDR', 'TYPER', 'CBASER', 'CWRITER', 'CREADR', 'BASER0', 'BASER1'] as const;

type Found = Omit<ReplayDifference, 'step' | 'op'>;
type Answered = Extract<VectorStep, { ret: number }> | Extract<VectorStep, { op: 'msis' }>;

const show = (value: unknown): string =>
  JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? `0x${item.toString(16)}` : item));

function differs(what: string, expected: unknown, actual: unknown): Found | undefined {
  const [wanted, got] = [show(expected), show(actual)];
  return wanted === got ? undefined : { what, expected: wanted, actual: got };
}

class Replay {
  readonly #memory: VectorMemory;
  #vgic: Vgic;
  #expected = new Map<string, bigint>();

  constructor(
    private readonly vector: Vector,
    private readonly quirks: KernelQuirks,
  ) {
    this.#memory = new VectorMemory(vector.vm.memslots);
    for (const [gpa, word] of vector.mem0) this.#memory.setWord(gpa, word);
    this.#vgic = this.#create();
  }

  /** Executes one step; the first difference it shows, if any. */
  step(step: VectorStep): Found | undefined {
    switch (step.op) {
      case 'start':
        return this.#allRegisters(step.regs);
      case 'new_vm':
        this.#vgic = this.#create();
        return this.#allRegisters(step.regs);
      case 'mem_write':
        for (const [gpa, word] of step.words) this.#memory.setWord(gpa, word);
        return undefined;
      case 'mem_zero':
        this.#memory.zero(step.gpa, step.len);
        return undefined;
      case 'queue':
        this.#queue(step.qoff, step.cmds, step.its);
        return undefined;
      case 'miss_all':
        this.#memory.missAll();
        return undefined;
      case 'miss_page':
        this.#memory.missPage(step.gpa);
        return undefined;
      case 'protect_page':
        this.#memory.protectPage(step.gpa);
        return undefined;
      case 'fill_page':
        this.#memory.fillPage(step.gpa);
        return undefined;
      case 'state':
        return this.#state(step);
      default:
        return this.#answered(step);
    }
  }

  get #itsBases(): readonly bigint[] {
    const { its_base: first, more_its_bases: more = [] } = this.vector.vm;
    return [first, ...more];
  }

  #create(): Vgic {
    const { vcpu_ids: vcpuIds } = this.vector.vm;
    return new Vgic({ vcpuIds, itsBases: this.#itsBases, mode: 'kvm', quirks: this.quirks });
  }

  #answered(step: Answered): Found | undefined {
    if (step.faults === undefined) this.#memory.stopTracing();
    const found = step.op === 'msis' ? this.#msis(step) : this.#call(step);
    const { touches, changed } = this.#memory.takeEffects();
    return (
      found ??
      (step.faults === undefined ? undefined : differs('faults', step.faults, touches)) ??
      differs('mem', step.mem ?? [], changed) ??
      this.#registers(step.regs ?? {})
    );
  }

  #call(step: Exclude<Answered, { op: 'msis' }>): Found | undefined {
    if (step.op === 'its_get') {
      const { status, value } = this.#vgic.readItsRegister(step.its ?? 0, Number(step.off));
      return differs('ret', step.ret, status) ?? differs('val', step.val, value);
    }
    if (step.op === 'cmds') this.#queue(step.qoff, step.cmds, step.its);
    return differs('ret', step.ret, this.#memory.run(operationOf(this.#vgic, step)));
  }

  #msis({ addr, list }: Extract<VectorStep, { op: 'msis' }>): Found | undefined {
    for (const [index, [device, event, expected]] of list.entries()) {
      const actual = this.#vgic.signalMsi({ address: addr, flags: 1, device, event });
      const found = differs(`msi ${index}`, expected, actual);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #queue(offset: bigint, commands: readonly (readonly bigint[])[], its = 0): void {
    for (const [gpa, word] of queueWords(this.#vgic, offset, commands, its)) this.#memory.setWord(gpa, word);
  }

  #state({ its, lpis, ites }: Extract<VectorStep, { op: 'state' }>): Found | undefined {
    const actual = stateOf(this.#vgic, its);
    return differs('lpis', lpis, actual.lpis) ?? differs('ites', ites, actual.ites);
  }

  #allRegisters(listed: Readonly<Record<string, bigint>>): Found | undefined {
    this.#expected = new Map();
    return this.#registers(listed);
  }

  #registers(listed: Readonly<Record<string, bigint>>): Found | undefined {
    for (const [name, value] of Object.entries(listed)) this.#expected.set(name, value);
    for (const [name, actual] of this.#readAll()) {
      const found = differs(name, this.#expected.get(name) ?? 'not listed', actual);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  *#readAll(): Generator<readonly [string, bigint]> {
    for (const its of this.#itsBases.keys()) {
      for (const name of ITS_REGISTERS) {
        yield [`GITS${its || ''}_${name}`, this.#vgic.readItsRegister(its, GITS[name]).value];
      }
    }
    for (const vcpu of this.vector.vm.vcpu_ids.keys()) {
      for (const name of ['CTLR', 'TYPER', 'PROPBASER', 'PENDBASER'] as const) {
        yield [`GICR${vcpu}_${name}`, this.#vgic.readRedistributorRegister(vcpu, GICR[name])];
      }
    }
    yield ['GICD_CTLR', this.#vgic.readDistributorRegister(GICD.CTLR)];
  }
}
