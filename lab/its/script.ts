import { type CommandWords, type VectorVm } from 'demand-paging/arm64';

/** A step of a vector without its answer. `its` is the index of an ITS. */
export type ScriptStep =
  | { readonly op: 'new_vm' }
  | { readonly op: 'mem_write'; readonly words: readonly (readonly [gpa: bigint, word: bigint])[] }
  | { readonly op: 'miss_page' | 'protect_page' | 'fill_page'; readonly gpa: bigint }
  | { readonly op: 'its_set'; readonly its: number; readonly off: bigint; readonly val: bigint }
  | { readonly op: 'its_get'; readonly its: number; readonly off: bigint }
  | {
      readonly op: 'gicr_set';
      readonly cpu: number;
      readonly off: bigint;
      readonly val: bigint;
      readonly size: 4 | 8;
    }
  | { readonly op: 'gicd_set'; readonly off: bigint; readonly val: bigint; readonly size: 4 | 8 }
  /** Commands are queued where GITS_CWRITER points to, and run by moving it past them. */
  | { readonly op: 'cmds'; readonly its: number; readonly cmds: readonly CommandWords[] }
  | { readonly op: 'save_tables' | 'restore_tables' | 'ctrl_reset'; readonly its: number }
  | { readonly op: 'save_pending' }
  | { readonly op: 'its_ctrl_raw'; readonly its: number; readonly attr: number }
  | {
      readonly op: 'msis';
      readonly its: number;
      readonly list: readonly (readonly [device: number, event: number])[];
    }
  | {
      readonly op: 'msi_raw';
      readonly addr: bigint;
      readonly flags: number;
      readonly dev: number;
      readonly ev: number;
    };

/** What a recording is made of: a VM, its memory, and what is done to it. */
export interface Script {
  readonly id: string;
  readonly family: string;
  readonly index: number;
  readonly desc: string;
  readonly vm: VectorVm;
  readonly mem0: readonly (readonly [gpa: bigint, word: bigint])[];
  readonly steps: readonly ScriptStep[];
}

/** The bases of all ITSes of a VM. */
export const itsBases = ({ its_base: first, more_its_bases: more = [] }: VectorVm): readonly bigint[] => [
  first,
  ...more,
];
