import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { type Failure, type Progress } from './messages.js';

export interface FailedSlice extends Failure {
  /** Plays it again: as `--seed`. */
  readonly seed: number;
  /** What was under way, and the counters of the pager. */
  readonly doing: readonly string[];
  readonly statistics: object | undefined;
}

export interface SubjectState {
  faults: number;
  reads: number;
  slices: number;
  /** Slices, accessors, VMMs and handlers that were killed. */
  kills: number;
  wrong: number;
  hangs: number;
  errors: number;
  elapsed_ms: number;
  readonly failures: FailedSlice[];
}

const VERSION = 1;

/** What was done so far, kept in a file. */
export class SoakState {
  readonly subjects: Record<string, SubjectState>;

  /** Goes on with what the file has, if it is there. Throws where it is none of these. */
  constructor(readonly path: string) {
    if (!existsSync(path)) {
      this.subjects = {};
      return;
    }
    const { version, subjects } = JSON.parse(readFileSync(path, 'utf8')) as {
      readonly version: unknown;
      readonly subjects: Record<string, SubjectState>;
    };
    if (version !== VERSION) throw new Error(`${path} is no state of this soak: version ${String(version)}`);
    this.subjects = subjects;
  }

  of(subject: string): SubjectState {
    return (this.subjects[subject] ??= {
      faults: 0,
      reads: 0,
      slices: 0,
      kills: 0,
      wrong: 0,
      hangs: 0,
      errors: 0,
      elapsed_ms: 0,
      failures: [],
    });
  }

  get faults(): number {
    return Object.values(this.subjects).reduce((sum, { faults }) => sum + faults, 0);
  }

  get failures(): number {
    return Object.values(this.subjects).reduce((sum, { failures }) => sum + failures.length, 0);
  }

  /** Adds a slice, and writes the file: whole, or not at all. */
  add(
    subject: string,
    slice: {
      readonly seed: number;
      readonly elapsed_ms: number;
      readonly killed: boolean;
      readonly progress: Progress;
      readonly failure: Failure | undefined;
    },
  ): void {
    const state = this.of(subject);
    const { seed, elapsed_ms, killed, progress, failure } = slice;
    const { faults, reads, kills, doing, statistics } = progress;
    state.faults += faults;
    state.reads += reads;
    state.slices++;
    state.kills += kills + Number(killed);
    state.elapsed_ms += Math.round(elapsed_ms);
    if (failure) {
      state[({ wrong: 'wrong', hang: 'hangs', error: 'errors' } as const)[failure.kind]]++;
      state.failures.push({ seed, ...failure, doing, statistics });
    }
    writeFileSync(
      `${this.path}.new`,
      `${JSON.stringify({ version: VERSION, subjects: this.subjects }, null, 2)}\n`,
    );
    renameSync(`${this.path}.new`, this.path);
  }
}
