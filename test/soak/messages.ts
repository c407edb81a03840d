/** What a slice is told: one subject, for so many faults or so long, everything by chance from the seed. */
export interface SliceTask {
  readonly subject: string;
  readonly seed: number;
  readonly faults: number;
  readonly most_ms: number;
  /** An operation that takes longer hangs. */
  readonly hang_ms: number;
}

/** What a slice tells, from its beginning. */
export interface Progress {
  readonly faults: number;
  /** Pages that were read and compared. */
  readonly reads: number;
  /** Processes that were killed in it: accessors, VMMs, handlers. */
  readonly kills: number;
  /** Operations that are under way, with what they do. */
  readonly doing: readonly string[];
  /** Of the pager that is open. */
  readonly statistics: object | undefined;
}

export interface Failure {
  readonly kind: 'wrong' | 'hang' | 'error';
  readonly what: string;
}

export type SliceMessage =
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'failed'; readonly failure: Failure; readonly progress: Progress }
  | { readonly kind: 'done'; readonly progress: Progress };
