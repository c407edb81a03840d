import { type PageIndex, type PageRange } from '../api/address.js';
import { type RegionSpec } from '../api/layout.js';
import { type AccessResult } from './accessor.js';
import { type NativeSite } from './touch.js';
import { type Walk, type WalkReport } from './walk.js';

/** What a thread or process that makes accesses is started with. */
export interface AccessorData {
  readonly site: NativeSite;
  /** Every region mapped. */
  readonly regions: readonly RegionSpec[];
  /**
   * The process that has the memory, where it is another, and an address in it that can be read: for a trial.
   */
  readonly other: { readonly pid: number; readonly trial: number } | undefined;
}

export interface AccessMessage {
  readonly page: PageIndex;
  readonly offset: number;
  readonly length: number;
  readonly bytes: Uint8Array | undefined;
}

/** What it is told. */
export type AccessorCommand =
  | { readonly kind: 'access'; readonly id: number; readonly access: AccessMessage }
  | { readonly kind: 'walk'; readonly id: number; readonly walk: Walk }
  | { readonly kind: 'discard'; readonly id: number; readonly pages: PageRange }
  | { readonly kind: 'interrupt' }
  | { readonly kind: 'stop' };

/** What it tells. */
export type AccessorEvent =
  /** `errno`: that of the trial, 0 if it went well. */
  | { readonly kind: 'ready'; readonly thread: number; readonly errno: number }
  | { readonly kind: 'accessed'; readonly id: number; readonly result: AccessResult }
  | { readonly kind: 'walked'; readonly id: number; readonly report: WalkReport }
  /** `errno`: positive, or 0. */
  | { readonly kind: 'discarded'; readonly id: number; readonly errno: number }
  | { readonly kind: 'failed'; readonly id: number; readonly message: string };
