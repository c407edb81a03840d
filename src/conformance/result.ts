import { type Failure } from './failure.js';
import { formatTrace } from './format-trace.js';
import { type PropertyName } from './property.js';
import { failureText } from './text.js';
import { type TraceEntry } from './trace.js';

/** What repeats a failed run. */
export interface Replay {
  readonly seed: number;
  readonly path: string;
  /** What the run was made of, in words of the generator's. */
  readonly plan: string;
  readonly setting: string;
}

/** A property does not hold: of the runs that showed it, on a deterministic subject, the smallest that was found. */
export interface Fails {
  readonly outcome: 'fails';
  readonly failure: Failure;
  /** Who did what, in order. */
  readonly trace: readonly TraceEntry[];
  readonly runs: number;
  /** Absent where the run never came to an end, or was not begun. */
  readonly replay?: Replay;
}

/**
 * What came of evaluating a property. Plain data.
 *
 * - `holds`: it was not broken in so many runs.
 * - `unmediated`: at this access site nothing stops an access to a missing page; `failure` and `trace` show one, where
 *   it can be made here.
 * - `not-applicable`: what the subject declares says nothing of it.
 * - `skipped`: the access cannot be made here.
 */
export type Result =
  | { readonly outcome: 'holds'; readonly runs: number }
  | Fails
  | {
      readonly outcome: 'unmediated';
      readonly failure: Failure | undefined;
      readonly trace: readonly TraceEntry[];
    }
  | { readonly outcome: 'not-applicable'; readonly reason: string }
  | { readonly outcome: 'skipped' };

/** The result of one property on a subject. */
export type PropertyResult = {
  readonly name: PropertyName;
  readonly part: string | undefined;
  readonly claim: string;
} & Result;

export const UNMEDIATED_TEXT =
  'not intercepted: an access to a missing page goes through, and no fault is delivered';
export const SKIPPED_TEXT = 'an access from there cannot be made here';

/** A result in a sentence, without its trace. */
export function resultText(result: Result): string {
  switch (result.outcome) {
    case 'holds':
      return `${result.runs} runs`;
    case 'fails':
      return failureText(result.failure);
    case 'unmediated':
      return result.failure ? failureText(result.failure) : UNMEDIATED_TEXT;
    case 'not-applicable':
      return result.reason;
    case 'skipped':
      return SKIPPED_TEXT;
  }
}

/** All of a failure in plain text: what was seen, what repeats it, and its trace. */
export function failsText({ failure, runs, replay, trace }: Fails): string {
  const again = replay && [
    `run ${runs}, seed ${replay.seed}, path '${replay.path}'`,
    failureText(failure),
    `plan: ${replay.plan}`,
    `setting: ${replay.setting}`,
  ];
  return [...(again ?? [failureText(failure)]), 'trace:', ...formatTrace(trace)].join('\n');
}
