import Table from 'cli-table3';
import { type Estimate, bootstrapMedian, median } from './statistics.js';

/** What a ratio must reach, or must not exceed. */
export type Goal = { readonly atLeast: number } | { readonly atMost: number };

/** One measured figure. A file of this folder may export a list of them as `results`. */
export interface BenchResult {
  readonly name: string;
  /** Median of the pairwise ratios: ours over the reference's, or over what is allowed. */
  readonly ratio: number;
  /** 95 % confidence. */
  readonly interval: readonly [low: number, high: number];
  /** Absent for a figure that is only shown. */
  readonly goal: Goal | undefined;
  /** Whether the worse end of the interval keeps the goal; absent without one. */
  readonly met: boolean | undefined;
  readonly runs: number;
  /** The medians behind the ratio, with their unit. They hold for one moment of one machine. */
  readonly ours: Figure;
  readonly reference: Figure;
}

export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** Run by run, in the order of measuring. */
  readonly each: readonly number[];
}

/** Whether the whole interval keeps a goal. */
export function keeps([low, high]: Estimate['interval'], goal: Goal): boolean {
  return 'atLeast' in goal ? low >= goal.atLeast : high <= goal.atMost;
}

/** A figure measured against a limit instead of another program: the ratio is to the limit. */
export function againstLimit(
  name: string,
  { what, unit, each }: Omit<Figure, 'value'>,
  limit: { readonly value: number; readonly keep: 'atLeast' | 'atMost' },
): BenchResult {
  const { value, interval } = bootstrapMedian(each.map((one) => one / limit.value));
  const goal: Goal = limit.keep === 'atLeast' ? { atLeast: 1 } : { atMost: 1 };
  const reference = {
    what: limit.keep === 'atLeast' ? 'wanted' : 'allowed',
    value: limit.value,
    unit,
    each: [],
  };
  const ours = { what, value: median(each), unit, each };
  return {
    name,
    ratio: value,
    interval,
    goal,
    met: keeps(interval, goal),
    runs: each.length,
    ours,
    reference,
  };
}

const shown = (value: number): string =>
  value >= 1000 ? Math.round(value).toLocaleString('en-GB') : value.toPrecision(3);
const figure = ({ what, value, unit }: Figure): string => `${shown(value)} ${unit}\n${what}`;

function goalText(goal: Goal | undefined): string {
  if (!goal) return '';
  return 'atLeast' in goal ? `≥ ${goal.atLeast}` : `≤ ${goal.atMost}`;
}

/** The results for a reader. `plain`: without colours. */
export function resultTable(results: readonly BenchResult[], plain: boolean): string {
  const table = new Table({
    head: ['measured', 'ours', 'compared with', 'ratio', '95 %', 'goal', 'met'],
    style: plain ? { head: [], border: [] } : {},
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'left'],
    wordWrap: true,
  });
  for (const { name, ours, reference, ratio, interval, goal, met } of results) {
    const range = interval.map((edge) => edge.toFixed(2)).join(' – ');
    const verdict = met === undefined ? '' : met ? 'yes' : 'no';
    table.push([name, figure(ours), figure(reference), ratio.toFixed(2), range, goalText(goal), verdict]);
  }
  return table.toString();
}
