import { type MemoryEvent, type MemoryKind, type PageIndex, type Verb } from '../api/index.js';
import { type ModelKernel, type SiteMechanisms } from '../backends/memory/index.js';

/** Where a proposal can be read. */
export interface UapiSource {
  readonly title: string;
  readonly author: string;
  /** Of the posting: year, or year and month. */
  readonly date: string;
  /** Message-id of the mail, or name and version of the series. */
  readonly reference: string;
  /** What became of it, in one line. */
  readonly status: string;
}

/** A `#define`. Emitted so that a number chosen elsewhere wins: numbers of a proposal are never settled. */
export interface CConstant {
  readonly name: string;
  readonly value: bigint | number;
  readonly comment?: string;
}

export type CType = 'u8' | 'u16' | 'u32' | 'u64' | 's32' | 's64';

export interface CField {
  readonly name: string;
  readonly type: CType;
  /** Elements, for an array. */
  readonly count?: number;
  readonly comment?: string;
}

/** A structure that crosses the boundary. There is no implicit padding: every byte is a field's. */
export interface CStruct {
  readonly name: string;
  readonly fields: readonly CField[];
  readonly comment?: string;
}

export interface CIoctl {
  readonly name: string;
  /** Which descriptor takes it. */
  readonly on: 'vm' | 'vcpu' | 'device' | 'notification' | 'userfaultfd';
  /** The letter of the driver. Default KVM's, 0xAE. */
  readonly type?: number;
  /** A placeholder below 256, as every number of a proposal is. */
  readonly number: number;
  /** `w`: user space writes the structure, the kernel reads it; `r`: the other way; `wr`: both. */
  readonly direction: 'none' | 'w' | 'r' | 'wr';
  /** Name of one of the structures, or absent for `none`. */
  readonly struct?: string;
  readonly does: string;
  /** Its errors and when they come. */
  readonly errors?: Readonly<Record<string, string>>;
}

/** What a proposal does inside the kernel: made anew for each attachment, so state may live in its closure. */
export interface KernelSide {
  /** Mechanisms before access sites; a site without one is unmediated. */
  readonly sites: SiteMechanisms;
  /**
   * The pager takes a page back: called before the page is dropped, for a presence of the proposal's own.
   * Not called when another thread discards pages.
   */
  discardedByPager?(page: PageIndex, kernel: ModelKernel): void;
  /**
   * What the VMM does when every page has come, so that memory is mapped in whole blocks: it turns a flag off, or puts
   * the slots together. Absent where nothing ends demand paging.
   */
  readonly turnOff?: 'flag-off' | 'one-slot';
}

/** How a proposal is put to use. */
export interface Surroundings {
  /**
   * Whether a userfaultfd is registered on the VMM's mapping as well. Then contents arrive by its verbs, and
   * an access passes when both are satisfied; otherwise contents are written through the VMM's mapping.
   */
  readonly userfaultfd: boolean;
  /**
   * Whether the handler wakes those who wait for a page that it finds there already (EEXIST), which userfaultfd
   * does not do by itself. Default true; false is the mistake.
   */
  readonly wakesOnExist: boolean;
}

/**
 * A proposed UAPI as data and one function: what {@link defineUapi} takes.
 *
 * `Options` are the choices that the proposal leaves open, and the mistakes that it invites; one backend is
 * built from one choice of them.
 */
export interface UapiDefinition<Options extends object> {
  /** Kebab-case. */
  readonly name: string;
  readonly source: UapiSource;
  readonly constants?: readonly CConstant[];
  readonly structs?: readonly CStruct[];
  readonly ioctls?: readonly CIoctl[];
  /** Kind of memory it is run on. Default `anonymous`. */
  readonly memory?: MemoryKind;
  /** What can be done about a page through the proposal alone. Beside a userfaultfd its verbs are there, too. */
  readonly verbs: readonly Verb[];
  /** Changes of memory that it announces by itself. Default none. */
  readonly events?: readonly MemoryEvent['kind'][];
  readonly defaults: Options;
  kernelSide(options: Options, surroundings: Surroundings): KernelSide;
}
