import { type AccessSite, type Coverage, type Supports } from '../../api/index.js';
import { type ScenarioResult } from '../../scenarios/index.js';
import { type PlainFailure } from '../failure.js';
import { type TargetGroup } from './target.js';
import { type Cell, type CellResult } from './cell.js';

export interface RunOptions {
  /** Runs of each cell. */
  readonly runs: number;
  /** Of all that is chosen: with the same one the same runs are made. */
  readonly seed: number;
  /** After so long no more runs of a cell are begun and no smaller counterexample is looked for, in milliseconds. */
  readonly within_ms: number;
  /** Which run of a failed check to repeat. */
  readonly path?: string;
}

/** What an evaluating process is told to do. */
export interface EvaluationJob {
  /** A name or the path of a module. */
  readonly target: string;
  readonly cells: readonly Cell[];
  /** Names of scenarios, run after the cells; by what is no prototype, none. */
  readonly scenarios: readonly string[];
  readonly options: RunOptions;
  /** The descriptor of a file for the events of the run under way, one a line as JSON, which is read when the process has to be killed. */
  readonly blackBox?: number;
}

/** The number of that descriptor in the evaluating process, where it inherits one. */
export const BLACK_BOX = 4;

/** Status of an evaluating process that waits for something, with nothing under way that could bring it. */
export const IDLE_STATUS = 99;

/** What was found out about a target when it was opened. */
export interface TargetFacts {
  readonly name: string;
  readonly title: string;
  readonly group: TargetGroup;
  readonly status: string;
  readonly deterministic: boolean;
}

/** What it declares. */
export interface Declared {
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly sites: readonly AccessSite[];
}

export type EvaluationMessage =
  | { readonly kind: 'loaded'; readonly facts: TargetFacts }
  /** This host lacks something for it. */
  | { readonly kind: 'unavailable'; readonly reason: string }
  | { readonly kind: 'refused'; readonly failure: PlainFailure }
  | { readonly kind: 'declared'; readonly declared: Declared }
  /** Index into the job's cells, and after them its scenarios. */
  | { readonly kind: 'begin'; readonly index: number }
  | { readonly kind: 'cell'; readonly index: number; readonly result: CellResult }
  | { readonly kind: 'scenario'; readonly result: ScenarioResult }
  /** Nothing comes after this. */
  | { readonly kind: 'over' };
