import { type AccessSite, type MemoryKind, type PagerPolicy, type Statistics } from '../api/index.js';
import { type WalkReport } from '../accessors/index.js';
import { type Vector } from '../arm64/index.js';
import { type PlainFailure } from './failure.js';

/** The number of the descriptor of an image without a name, in the restoring process. */
export const INHERITED_IMAGE = 4;

/** What the restoring process is to do. Cloneable. */
export interface RestoreJob {
  /** `path`: or the descriptor that the restoring process inherits, {@link INHERITED_IMAGE}. */
  readonly image: { readonly path: string | number; readonly base: bigint; readonly length: number };
  /** The vector whose GIC and ITS are restored from the image; none: memory only. */
  readonly vector: Vector | undefined;
  /** Bytes from the image's start that hold the tables: they are prefetched last. */
  readonly table_bytes: number;
  readonly backend: 'auto' | 'userfaultfd' | 'memory';
  readonly memory: Extract<MemoryKind, 'anonymous' | 'shmem' | 'hugetlb'>;
  readonly pageSize: number;
  readonly accessors: number;
  readonly prefetch: boolean;
  readonly latency_ms: number;
  readonly seed: number;
  readonly policy: Partial<PagerPolicy>;
}

/** The backend that serves, and why it is not the one that was wished for. */
export interface ChosenBackend {
  readonly name: string;
  readonly fallback: { readonly from: string; readonly why: string; readonly remedy: string } | undefined;
}

/** One accessor's part. */
export interface AccessorResult extends WalkReport {
  readonly site: AccessSite;
  readonly how: string;
  readonly order: 'sequential' | 'random';
  /** Whether the checksum of what it saw is that of the image. */
  readonly right: boolean;
}

/** One access to guest memory that restoring the GIC and the ITS made. */
export interface ItsAccess {
  readonly step: string;
  readonly page: bigint;
  readonly kind: 'R' | 'W';
  readonly structure: string;
  readonly missed: boolean;
  readonly wait_ms: number;
}

export interface ItsResult {
  readonly id: string;
  readonly accesses: readonly ItsAccess[];
  readonly elapsed_ms: number;
  readonly lpis: number;
  readonly entries: number;
  /** First touches in the order in which the recorded kernel faulted: how many agree, of how many. Undefined where none were recorded. */
  readonly order: { readonly agree: number; readonly recorded: number } | undefined;
  /** Where the restored state and the recorded one part; empty for nowhere. */
  readonly differences: readonly string[];
}

export interface VerifyResult {
  readonly bytes: number;
  readonly wrong_bytes: number;
  readonly firstWrong: bigint | undefined;
  /** Pages that could not be read. */
  readonly unreadablePages: number;
  /** Bytes that restoring the GIC changed, checked against what the recorded kernel wrote. */
  readonly changed_bytes: number;
  readonly elapsed_ms: number;
}

/** What is left after closing, beyond what was there before opening; undefined where this host does not tell. */
export interface Leaks {
  readonly descriptors: number;
  /** What the descriptors that are left are of. */
  readonly descriptorsOf: readonly string[];
  readonly threads: number;
  readonly mappings: number;
  readonly processes: number;
}

export interface RestoreResult {
  readonly ok: boolean;
  readonly backend: ChosenBackend;
  readonly accessors: readonly AccessorResult[];
  /** Sites that cannot be exercised here, and why. */
  readonly unavailable: readonly { readonly site: AccessSite; readonly why: string }[];
  readonly its: ItsResult | undefined;
  readonly prefetch: { readonly installedPages: number; readonly skippedPages: number } | undefined;
  readonly statistics: Statistics;
  /** From the first request for a page to the first access that got one. */
  readonly firstAccess_ms: number | undefined;
  /** From the first request for a page to the last page's arrival. */
  readonly complete_ms: number;
  readonly verify: VerifyResult;
  readonly leaks: Leaks | undefined;
}

/** What the restoring process tells. */
export type RestoreMessage =
  | { readonly kind: 'opened'; readonly backend: ChosenBackend; readonly pages: number }
  | {
      readonly kind: 'progress';
      readonly phase: RestorePhase;
      readonly statistics: Statistics;
      readonly elapsed_ms: number;
    }
  /** The source fails; it may be tried again. */
  | { readonly kind: 'trouble'; readonly failure: PlainFailure }
  | { readonly kind: 'result'; readonly result: RestoreResult }
  | { readonly kind: 'failed'; readonly failure: PlainFailure };

export type RestorePhase = 'paging' | 'checking';

/** What it is told. */
export type RestoreCommand =
  { readonly kind: 'start'; readonly job: RestoreJob } | { readonly kind: 'interrupt' };
