import { GITS, gitsCbaser, type KernelName, parseVectors, type Vector } from 'demand-paging/arm64';
import { KVM_DEV_ARM_CTRL } from 'demand-paging/linux';
import { type Effects, type GuestRam } from './guest-ram.js';
import { type GicSpec, type GicVm, type PlacedSlot } from './gic-vm.js';
import { itsBases, type Script, type ScriptStep } from './script.js';

const COMMAND_BYTES = 32n;
const QUEUE_PAGE = 4096n;

type Operation = Exclude<
  ScriptStep,
  { op: 'new_vm' | 'mem_write' | 'miss_page' | 'protect_page' | 'fill_page' | 'msis' }
>;
/** A step of a vector as it is written down. */
type Line = Readonly<Record<string, unknown>>;

/** What a recording needs of guest memory. */
export type RecordedRam = Pick<
  GuestRam,
  'reset' | 'slots' | 'setWord' | 'missPage' | 'protectPage' | 'fillPage' | 'observe'
>;

/** What a recording needs of a GIC: a real KVM's, or a replacement for it. */
export type RecordedGic = Pick<
  GicVm,
  | 'setIts'
  | 'getIts'
  | 'setRedistributor'
  | 'setDistributor'
  | 'itsControl'
  | 'savePending'
  | 'signalMsi'
  | 'registers'
  | 'close'
>;

/** Makes a VM with a GIC as it is when it is new. */
export type CreateGic = (spec: GicSpec, slots: readonly PlacedSlot[]) => RecordedGic;

/** A line of a file of vectors. */
export const vectorLine = (vector: unknown): string =>
  JSON.stringify(vector, (_, value: unknown) =>
    typeof value === 'bigint' ? `0x${value.toString(16)}` : value,
  );

/**
 * Plays a script, on a real KVM for one, and writes down what it answered, as a vector: each status, every
 * register that reads differently than before, every word of memory that changed, and the pages that were
 * asked for, all of them missing before each operation.
 */
export function recordVector(
  create: CreateGic,
  ram: RecordedRam,
  script: Script,
  kernel: KernelName,
): Vector {
  using recorder = new Recorder(create, ram, script);
  const { steps, mem0, ...head } = script;
  const lines = [recorder.start(), ...steps.flatMap((step) => recorder.play(step))];
  const text = vectorLine({ ...head, kernel, mem0, steps: lines });
  return parseVectors(text, script.id)[0]!;
}

class Recorder {
  readonly #createGic: CreateGic;
  readonly #ram: RecordedRam;
  readonly #script: Script;
  #gic: RecordedGic;
  #registers = new Map<string, bigint>();

  constructor(create: CreateGic, ram: RecordedRam, script: Script) {
    this.#createGic = create;
    this.#ram = ram;
    this.#script = script;
    ram.reset(script.vm.memslots);
    for (const [gpa, word] of script.mem0) ram.setWord(gpa, word);
    this.#gic = this.#create();
  }

  [Symbol.dispose](): void {
    this.#gic.close();
  }

  start(): Line {
    return { op: 'start', regs: this.#changedRegisters() };
  }

  play(step: ScriptStep): Line[] {
    switch (step.op) {
      case 'new_vm':
        this.#gic.close();
        this.#gic = this.#create();
        this.#registers = new Map();
        return [{ op: 'new_vm', regs: this.#changedRegisters() }];
      case 'mem_write':
        for (const [gpa, word] of step.words) this.#ram.setWord(gpa, word);
        return [step];
      case 'miss_page':
        this.#ram.missPage(step.gpa);
        return [step];
      case 'protect_page':
        this.#ram.protectPage(step.gpa);
        return [step];
      case 'fill_page':
        this.#ram.fillPage(step.gpa);
        return [step];
      case 'msis':
        return this.#msis(step);
      default:
        return this.#operation(step);
    }
  }

  #create(): RecordedGic {
    const { vm } = this.#script;
    const spec = {
      vcpuIds: vm.vcpu_ids,
      itsBases: itsBases(vm),
      gicdBase: vm.gicd_base,
      gicrBase: vm.gicr_base,
    };
    return this.#createGic(spec, this.#ram.slots);
  }

  #operation(step: Operation): Line[] {
    const more: { qoff?: bigint; cwriter?: bigint } = step.op === 'cmds' ? this.#queue(step) : {};
    const { result, effects } = this.#ram.observe(() => this.#issue(step, more.cwriter ?? 0n));
    const [answer, read] = typeof result === 'number' ? [result, {}] : [result.status, { val: result.value }];
    return [
      { op: 'miss_all' },
      { ...withoutFirst(step), ...more, ret: answer, ...read, ...this.#effects(effects) },
    ];
  }

  #msis({ its, list }: Extract<ScriptStep, { op: 'msis' }>): Line[] {
    const addr = itsBases(this.#script.vm)[its]! + 0x1_0040n;
    const { result, effects } = this.#ram.observe(() =>
      list.map(([device, event]) => [device, event, this.#gic.signalMsi(addr, 1, device, event)]),
    );
    return [{ op: 'miss_all' }, { op: 'msis', addr, list: result, ...this.#effects(effects) }];
  }

  #issue(step: Operation, cwriter: bigint): number | { readonly status: number; readonly value: bigint } {
    const gic = this.#gic;
    switch (step.op) {
      case 'its_set':
        return gic.setIts(step.its, step.off, step.val);
      case 'its_get':
        return gic.getIts(step.its, step.off);
      case 'gicr_set':
        return gic.setRedistributor(step.cpu, step.off, step.val, step.size);
      case 'gicd_set':
        return gic.setDistributor(step.off, step.val, step.size);
      case 'cmds':
        return gic.setIts(step.its, BigInt(GITS.CWRITER), cwriter);
      case 'save_tables':
        return gic.itsControl(step.its, KVM_DEV_ARM_CTRL.ITS_SAVE_TABLES);
      case 'restore_tables':
        return gic.itsControl(step.its, KVM_DEV_ARM_CTRL.ITS_RESTORE_TABLES);
      case 'ctrl_reset':
        return gic.itsControl(step.its, KVM_DEV_ARM_CTRL.ITS_CTRL_RESET);
      case 'save_pending':
        return gic.savePending();
      case 'its_ctrl_raw':
        return gic.itsControl(step.its, step.attr);
      case 'msi_raw':
        return gic.signalMsi(step.addr, step.flags, step.dev, step.ev);
      default:
        return step satisfies never;
    }
  }

  /** Puts commands where the queue goes on, as a guest does, and says where it then ends. */
  #queue({ its, cmds }: Extract<ScriptStep, { op: 'cmds' }>): { qoff: bigint; cwriter: bigint } {
    const { address, pages } = gitsCbaser.decode(this.#gic.getIts(its, BigInt(GITS.CBASER)).value);
    const bytes = BigInt(pages) * QUEUE_PAGE;
    const qoff = this.#gic.getIts(its, BigInt(GITS.CWRITER)).value;
    let at = qoff;
    for (const word of cmds.flat()) {
      this.#ram.setWord(address + (at % bytes), word);
      at += 8n;
    }
    return { qoff, cwriter: (qoff + COMMAND_BYTES * BigInt(cmds.length)) % bytes };
  }

  #effects({ faults, changed }: Effects): Line {
    const regs = this.#changedRegisters();
    return {
      faults,
      ...(changed.length > 0 ? { mem: changed } : {}),
      ...(Object.keys(regs).length > 0 ? { regs } : {}),
    };
  }

  #changedRegisters(): Record<string, bigint> {
    const now = this.#gic.registers();
    const changed = [...now].filter(([name, value]) => this.#registers.get(name) !== value);
    this.#registers = now;
    return Object.fromEntries(changed);
  }
}

/** The step as a vector has it: the first ITS goes without saying. */
function withoutFirst(step: Operation): Line {
  if (!('its' in step) || step.its !== 0) return { ...step };
  const { its: _, ...rest } = step;
  return rest;
}
