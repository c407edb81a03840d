import { describe, expect, test } from 'vitest';
import {
  closedQueueRate,
  fitClosedQueue,
  fitPowerLaw,
  fitUniversalScalability,
  measureFit,
  PUBLISHED_RATES,
  publishedFits,
} from 'demand-paging/scenarios';

const point = (vcpus: number, kiloPagesPerSecond: number) => ({ vcpus, kiloPagesPerSecond });

describe('a closed queue', () => {
  test('of one customer is one cycle after the other', () => {
    expect(closedQueueRate({ think_us: 3, service_us: 2, contention: 1 }, 1)).toBeCloseTo(200, 9);
  });

  test('of two customers, without contention, is the textbook’s', () => {
    // Machine repairman, r = Z/S: X = (1 + 2/r... ) solved by hand for Z = S = 1: P(0) = 1/5, X = 4/5.
    expect(closedQueueRate({ think_us: 1, service_us: 1, contention: 0 }, 2)).toBeCloseTo(800, 9);
  });

  test('saturates at its service rate, and with contention falls below it', () => {
    expect(closedQueueRate({ think_us: 1, service_us: 2, contention: 0 }, 200)).toBeCloseTo(500, 3);
    expect(closedQueueRate({ think_us: 1, service_us: 2, contention: 0.1 }, 200)).toBeLessThan(30);
  });
});

describe('fitting', () => {
  test('finds the queue that made two points', () => {
    const truth = { think_us: 1.25, service_us: 5, contention: 0.02 };
    const made = [2, 64].map((n) => point(n, closedQueueRate(truth, n)));
    const { parameters } = fitClosedQueue(made[1]!, made[0]!);
    expect(parameters['service_us']).toBeCloseTo(5, 6);
    expect(parameters['contention']).toBeCloseTo(0.02, 6);
  });

  test('goes through its points', () => {
    const [a, b, c] = [point(1, 100), point(4, 220), point(64, 90)];
    for (const { model, points } of [
      { model: fitPowerLaw(a, c), points: [a, c] },
      { model: fitUniversalScalability(a, b, c), points: [a, b, c] },
    ])
      for (const { vcpus, kiloPagesPerSecond } of points)
        expect(model.rate(vcpus)).toBeCloseTo(kiloPagesPerSecond, 6);
  });

  test.each([
    ['the same vCPUs twice', point(4, 100), point(4, 200)],
    ['no rate', point(1, 0), point(4, 200)],
    ['half a vCPU', point(0.5, 100), point(4, 200)],
    ['a rate that one queue cannot have', point(1, 100), point(8, 900)],
  ])('refuses %s', (_what, a, b) => {
    expect(() => fitClosedQueue(a, b)).toThrow(RangeError);
  });

  test('measures only the points that were not fitted', () => {
    const fit = measureFit(
      { name: 'flat', parameters: {}, rate: () => 100 },
      [point(1, 100), point(2, 200), point(4, 50)],
      [1],
    );
    expect(fit.predictions.map(({ error, fitted }) => [error, fitted])).toEqual([
      [0, true],
      [-0.5, false],
      [1, false],
    ]);
    expect([fit.meanError, fit.largestError]).toEqual([0.75, 1]);
  });
});

describe('the published curves', () => {
  test('have the errors that are said of their models', () => {
    const seen = publishedFits().map(({ curve, model, fittedOn, meanError, largestError }) => [
      curve,
      model.name,
      fittedOn.join(' '),
      Math.round(meanError * 100),
      Math.round(largestError * 100),
    ]);
    expect(seen).toEqual([
      ['userfaultfd', 'closed queue', '1 256', 9, 16],
      ['userfaultfd', 'universal scalability law', '1 8 256', 11, 23],
      ['exits', 'power law', '1 128', 19, 47],
      ['exits', 'universal scalability law', '1 16 256', 22, 38],
    ]);
  });

  test('are of one queue that collapses, and of exits that do not', () => {
    const { userfaultfd, exits } = PUBLISHED_RATES;
    expect(userfaultfd.at(-1)!.kiloPagesPerSecond).toBeLessThan(userfaultfd[0]!.kiloPagesPerSecond);
    expect(exits.at(-1)!.kiloPagesPerSecond).toBeGreaterThan(10 * exits[0]!.kiloPagesPerSecond);
  });
});
