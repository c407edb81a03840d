import { DemandPagingError, driveSync, type Gpa } from '../api/index.js';
import {
  type DumpRegisters,
  GICR,
  GITS,
  KERNELS,
  operationOf,
  queueWords,
  type Vector,
  type VectorStep,
  Vgic,
} from '../arm64/index.js';
import { SparseMemory } from './sparse-memory.js';

/** Steps that make no difference to whoever restores: they look, or say how the recording went on. */
type RestoreStep = Extract<
  VectorStep,
  { op: 'its_set' | 'its_get' | 'gicr_set' | 'gicd_set' | 'restore_tables' | 'state' }
>;

/** A VM as a vector left it when its tables had been saved, and how the recorded kernel restored it. */
export interface SavedVm {
  readonly vector: Vector;
  /** Guest memory just before the tables are restored. */
  readonly memory: SparseMemory;
  /** What is done to the new VM: registers in the documented order, the tables, and the state that came of it. */
  readonly restore: readonly RestoreStep[];
}

const newVgic = ({ vm, kernel = '7.3' }: Vector): Vgic =>
  new Vgic({ vcpuIds: vm.vcpu_ids, itsBases: [vm.its_base], mode: 'kvm', quirks: KERNELS[kernel] });

/** A GIC as the vector's VM has it when it is created. */
export { newVgic };

/**
 * Replays a vector up to the restore of saved tables that it holds.
 * Errors: BAD_IMAGE where it holds none that succeeded and was looked at, or does more than restore in between.
 */
export function savedVm(vector: Vector): SavedVm {
  const { steps, vm } = vector;
  if (vm.more_its_bases !== undefined) throw unusable(vector, 'has several ITSes');
  const restored = steps.findIndex((step) => step.op === 'restore_tables' && step.ret === 0);
  const seen = steps.findIndex((step, at) => at > restored && step.op === 'state');
  if (restored < 0 || seen < 0) throw unusable(vector, 'restores no tables, or not with success');
  const fresh = steps.findLastIndex(
    (step, at) => at < restored && (step.op === 'new_vm' || step.op === 'start'),
  );
  const restore = steps.slice(fresh + 1, seen + 1).flatMap((step): RestoreStep[] => {
    if (isRestoreStep(step)) return [step];
    // What the harness does to memory belongs to the image, as long as the restore comes after it.
    const harmless = step.op === 'mem_write' || step.op === 'mem_zero' || step.op === 'miss_all';
    if (harmless && steps.indexOf(step) < restored) return [];
    throw unusable(vector, `does ${step.op} between its new VM and the restored state`);
  });
  return { vector, memory: memoryBefore(vector, restored), restore };
}

const unusable = ({ id }: Vector, why: string): DemandPagingError =>
  new DemandPagingError('BAD_IMAGE', `vector ${id} cannot be restored from: it ${why}`, {
    hint: 'Vectors of the families A, B and C that end with a restored state can',
  });

function isRestoreStep(step: VectorStep): step is RestoreStep {
  return ['its_set', 'its_get', 'gicr_set', 'gicd_set', 'restore_tables', 'state'].includes(step.op);
}

/** Guest memory as the steps before `end` leave it. */
function memoryBefore(vector: Vector, end: number): SparseMemory {
  const memory = new SparseMemory(vector.vm.memslots);
  for (const [gpa, word] of vector.mem0) memory.setWord(gpa, word);
  let vgic = newVgic(vector);
  for (const step of vector.steps.slice(0, end)) vgic = perform(vector, vgic, memory, step);
  return memory;
}

/** Does one step to the memory and the GIC; the GIC to go on with. */
function perform(vector: Vector, vgic: Vgic, memory: SparseMemory, step: VectorStep): Vgic {
  switch (step.op) {
    case 'new_vm':
      return newVgic(vector);
    case 'mem_write':
      for (const [gpa, word] of step.words) memory.setWord(gpa, word);
      return vgic;
    case 'mem_zero':
      memory.zero(step.gpa, step.len);
      return vgic;
    case 'queue':
    case 'cmds':
      for (const [gpa, word] of queueWords(vgic, step.qoff, step.cmds)) memory.setWord(gpa, word);
      if (step.op === 'cmds') driveSync(operationOf(vgic, step), memory);
      return vgic;
    case 'msis':
      for (const [device, event] of step.list)
        vgic.signalMsi({ address: step.addr, flags: 1, device, event });
      return vgic;
    case 'miss_page':
    case 'protect_page':
    case 'fill_page':
      throw unusable(vector, 'has pages that fail');
    case 'start':
    case 'state':
    case 'miss_all':
    case 'its_get':
      return vgic;
    default:
      driveSync(operationOf(vgic, step), memory);
      return vgic;
  }
}

/** The GIC with its registers programmed, just before the tables are restored. */
export function programmedVgic({ vector, restore, memory }: SavedVm): Vgic {
  const vgic = newVgic(vector);
  for (const step of restore) {
    if (step.op === 'restore_tables') break;
    if (step.op !== 'its_get' && step.op !== 'state') driveSync(operationOf(vgic, step), memory);
  }
  return vgic;
}

/** The registers that say where the saved tables are. */
export function dumpRegisters(vgic: Vgic, vcpuIds: readonly number[]): DumpRegisters {
  const its = (offset: number): bigint => vgic.readItsRegister(0, offset).value;
  return {
    baser0: its(GITS.BASER0),
    baser1: its(GITS.BASER1),
    propbaser: vgic.readRedistributorRegister(0, GICR.PROPBASER),
    pendbasers: new Map(
      vcpuIds.map((_, vcpu) => [vgic.rdbase(vcpu), vgic.readRedistributorRegister(vcpu, GICR.PENDBASER)]),
    ),
  };
}

/** The words that the recorded kernel wrote into guest memory while it restored, as it left them. */
export function restoredWords({ restore }: SavedVm): ReadonlyMap<Gpa, bigint> {
  const words = new Map<Gpa, bigint>();
  for (const step of restore) {
    if (!('mem' in step) || !step.mem) continue;
    for (const [gpa, word] of step.mem) words.set(gpa as Gpa, word);
  }
  return words;
}
