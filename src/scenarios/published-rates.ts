import {
  type Fit,
  fitClosedQueue,
  fitPowerLaw,
  fitUniversalScalability,
  measureFit,
  type RatePoint,
} from './scaling-model.js';

const VCPUS = [1, 2, 4, 8, 16, 64, 128, 256];
const curve = (rates: readonly number[]): readonly RatePoint[] =>
  VCPUS.map((vcpus, at) => ({ vcpus, kiloPagesPerSecond: rates[at]! }));

/**
 * Rates of the kernel's `demand_paging_test` on a 256-core x86 machine, as published with exit on missing: every vCPU
 * on one userfaultfd, and every vCPU by its own exit.
 *
 * Source: Anish Moorthy's series on the KVM list, 2023 and 2024.
 */
export const PUBLISHED_RATES = {
  userfaultfd: curve([150, 191, 210, 155, 130, 86, 62, 36]),
  exits: curve([340, 477, 809, 1239, 1595, 3482, 4134, 4012]),
} as const;

/** A curve, the two points that a model was fitted on, and how it does on the others. */
export interface NamedFit extends Fit {
  readonly curve: string;
  readonly fittedOn: readonly number[];
}

const at = (points: readonly RatePoint[], vcpus: number): RatePoint =>
  points.find((point) => point.vcpus === vcpus)!;

/** Fits on both ends of the curve of one queue, where the model interpolates, and on ends of the other; and the baseline. */
export function publishedFits(): readonly NamedFit[] {
  const { userfaultfd, exits } = PUBLISHED_RATES;
  const [one, many] = [1, 256];
  const fits: readonly (readonly [string, readonly RatePoint[], readonly number[], Fit['model']])[] = [
    ['userfaultfd', userfaultfd, [one, many], fitClosedQueue(at(userfaultfd, one), at(userfaultfd, many))],
    [
      'userfaultfd',
      userfaultfd,
      [1, 8, 256],
      fitUniversalScalability(at(userfaultfd, 1), at(userfaultfd, 8), at(userfaultfd, 256)),
    ],
    ['exits', exits, [1, 128], fitPowerLaw(at(exits, 1), at(exits, 128))],
    ['exits', exits, [1, 16, 256], fitUniversalScalability(at(exits, 1), at(exits, 16), at(exits, 256))],
  ];
  return fits.map(([name, points, fittedOn, model]) => ({
    curve: name,
    fittedOn,
    ...measureFit(model, points, fittedOn),
  }));
}
