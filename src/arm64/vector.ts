import { z } from 'zod';
import { DemandPagingError } from '../api/index.js';
import { KERNELS, type KernelName } from './kernel-quirks.js';

/**
 * A golden vector: a VM, its memory, and steps with what the kernel answered. One JSON object a line.
 *
 * Strings are hexadecimal with 0x, plain numbers decimal; memory words are 64-bit little-endian and
 * 8-aligned. `vcpu_ids[i]` is the vcpu_id of vCPU i; `cpu` and the targets in `lpis` are indexes, a
 * collection's target is an id. A VM with several ITSes names the bases of those after the first in
 * `more_its_bases`; `its` in a step is the index of the ITS it is about, 0 when it is left out, and the
 * registers of ITS n > 0 are called `GITS<n>_…`. `kernel` is the one that answered, by its name in KERNELS;
 * 7.3 when it is left out. A step that does something to the VM may carry ret     0 or minus errno mem
 * the words of guest memory that the kernel changed, in order of address regs    the registers that read
 * differently than before; all of them after `start` and `new_vm` faults  while missing pages are traced: the
 * first touches of pages, in order, R or W
 */

const hexPattern = /^0x[0-9a-f]{1,16}$/i;
const hex64 = z.string().regex(hexPattern, 'expected 0x and up to 16 hexadecimal digits').transform(BigInt);
const aligned = (by: bigint) => hex64.refine((value) => value % by === 0n, `expected a multiple of ${by}`);
const u32 = z.union([
  z.number().int().min(0).max(0xffff_ffff),
  hex64.transform(Number).refine((value) => value <= 0xffff_ffff, 'expected at most 32 bits'),
]);
const status = z.number().int().min(-4095).max(1);
const word = z.tuple([aligned(8n), hex64]);
const command = z.tuple([hex64, hex64, hex64, hex64]);
const effects = {
  mem: z.array(word).optional(),
  regs: z.record(z.string(), hex64).optional(),
  faults: z.array(z.tuple([aligned(4096n), z.enum(['R', 'W'])])).optional(),
};
const answered = { ret: status, ...effects };
/** Index of an ITS. */
const its = z.number().int().min(0).max(15).optional();

const step = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('start'), regs: z.record(z.string(), hex64) }),
  z.strictObject({ op: z.literal('new_vm'), regs: z.record(z.string(), hex64) }),
  z.strictObject({ op: z.literal('mem_write'), words: z.array(word) }),
  z.strictObject({ op: z.literal('mem_zero'), gpa: hex64, len: hex64 }),
  z.strictObject({ op: z.literal('its_set'), its, off: hex64, val: hex64, ...answered }),
  z.strictObject({ op: z.literal('its_get'), its, off: hex64, val: hex64, ...answered }),
  z.strictObject({
    op: z.literal('gicr_set'),
    cpu: u32,
    off: hex64,
    val: hex64,
    size: z.union([z.literal(4), z.literal(8)]),
    ...answered,
  }),
  z.strictObject({
    op: z.literal('gicd_set'),
    off: hex64,
    val: hex64,
    size: z.union([z.literal(4), z.literal(8)]),
    ...answered,
  }),
  z.strictObject({
    op: z.literal('cmds'),
    its,
    qoff: aligned(32n),
    cmds: z.array(command),
    cwriter: hex64,
    ...answered,
  }),
  z.strictObject({ op: z.literal('queue'), its, qoff: aligned(32n), cmds: z.array(command) }),
  z.strictObject({ op: z.literal('save_tables'), its, ...answered }),
  z.strictObject({ op: z.literal('restore_tables'), its, ...answered }),
  z.strictObject({ op: z.literal('ctrl_reset'), its, ...answered }),
  z.strictObject({ op: z.literal('save_pending'), ...answered }),
  z.strictObject({ op: z.literal('its_ctrl_raw'), its, attr: u32, ...answered }),
  z.strictObject({
    op: z.literal('msis'),
    addr: hex64,
    list: z.array(z.tuple([u32, u32, status])),
    ...effects,
  }),
  z.strictObject({ op: z.literal('msi_raw'), addr: hex64, flags: u32, dev: u32, ev: u32, ...answered }),
  z.strictObject({
    op: z.literal('state'),
    its,
    lpis: z.array(z.array(z.number().int()).length(6)),
    ites: z.array(z.array(z.number().int()).length(6)),
  }),
  z.strictObject({ op: z.literal('miss_all') }),
  z.strictObject({ op: z.literal('miss_page'), gpa: aligned(4096n) }),
  z.strictObject({ op: z.literal('protect_page'), gpa: aligned(4096n) }),
  z.strictObject({ op: z.literal('fill_page'), gpa: aligned(4096n) }),
]);

const recorded = z.strictObject({
  id: z.string(),
  family: z.string(),
  index: z.number().int(),
  desc: z.string(),
  kernel: z.enum(Object.keys(KERNELS) as [KernelName, ...KernelName[]]).optional(),
  vm: z.strictObject({
    memslots: z.array(z.strictObject({ gpa: aligned(4096n), size: aligned(4096n) })).min(1),
    vcpu_ids: z.array(z.number().int().min(0).max(0xffff_fffe)).min(1),
    its_base: hex64,
    more_its_bases: z.array(hex64).max(15).optional(),
    gicd_base: hex64,
    gicr_base: hex64,
  }),
  mem0: z.array(word),
  steps: z.array(step),
});

const vector = recorded.superRefine(({ vm, steps }, context) => {
  const itses = 1 + (vm.more_its_bases?.length ?? 0);
  for (const [at, each] of steps.entries()) {
    if ('its' in each && each.its !== undefined && each.its >= itses)
      context.addIssue({
        code: 'custom',
        path: ['steps', at, 'its'],
        message: `there is no ITS ${each.its}`,
      });
  }
});

/** A recorded sequence of operations on a GIC and what came of each. */
export type Vector = z.infer<typeof vector>;
export type VectorStep = Vector['steps'][number];
export type VectorVm = Vector['vm'];

/**
 * Parses a file of vectors. Empty lines are skipped.
 * Errors: BAD_IMAGE, naming file, line and field, for anything that is not a vector.
 */
export function parseVectors(text: string, name: string): Vector[] {
  const vectors: Vector[] = [];
  text.split('\n').forEach((line, index) => {
    if (line.trim() === '') return;
    vectors.push(parseLine(line, `${name}:${index + 1}`));
  });
  return vectors;
}

function parseLine(line: string, where: string): Vector {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw new DemandPagingError('BAD_IMAGE', `${where}: not JSON`, { cause });
  }
  const parsed = vector.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = issue?.path.join('.') || 'the line';
    throw new DemandPagingError('BAD_IMAGE', `${where}: ${field}: ${issue?.message ?? 'malformed'}`);
  }
  return parsed.data;
}
