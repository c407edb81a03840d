/** A rate at which pages come, with so many vCPUs faulting. */
export interface RatePoint {
  readonly vcpus: number;
  /** Thousand pages a second. */
  readonly kiloPagesPerSecond: number;
}

/** A law of how the rate goes with the number of vCPUs. */
export interface ScalingModel {
  readonly name: string;
  /** What was fitted, by name; times are in µs. */
  readonly parameters: Readonly<Record<string, number>>;
  /** Thousand pages a second. */
  rate(vcpus: number): number;
}

/** One point of a curve beside what a model says of it. */
export interface Prediction extends RatePoint {
  readonly predicted: number;
  /** (predicted − measured) / measured. */
  readonly error: number;
  /** Whether the model was fitted on this point: its error says nothing. */
  readonly fitted: boolean;
}

export interface Fit {
  readonly model: ScalingModel;
  readonly predictions: readonly Prediction[];
  /** Mean and largest absolute error over the points that were not fitted. */
  readonly meanError: number;
  readonly largestError: number;
}

/**
 * How much of a lone vCPU's cycle runs beside the others', against one visit to the queue: entering and leaving
 * the guest, the touch itself. Chosen once for all curves, not fitted.
 */
const PARALLEL_SHARE = 0.25;
const LEAST_CONTENTION = 1e-7;
const MOST_CONTENTION = 10;
const GRID = 200;
const BISECTIONS = 80;

/**
 * The rate of a closed queueing network: `vcpus` customers, a part `think_us` of each cycle in parallel, and one server
 * whose service takes `service_us · (1 + contention · (n − 1))` while `n` are there. Solved exactly, as a birth and
 * death process.
 *
 * It has a reason: reading, filling and waking go on under the locks of one descriptor, by one handler, and a vCPU that queues
 * there makes the lock and the wake-ups slower for the others.
 */
export function closedQueueRate(
  {
    think_us,
    service_us,
    contention,
  }: { readonly think_us: number; readonly service_us: number; readonly contention: number },
  vcpus: number,
): number {
  const serviceOf = (n: number): number => service_us * (1 + contention * (n - 1));
  const logs = [0];
  for (let n = 1; n <= vcpus; n++)
    logs.push(logs[n - 1]! + Math.log((vcpus - n + 1) / think_us) + Math.log(serviceOf(n)));
  const top = Math.max(...logs);
  const weights = logs.map((log) => Math.exp(log - top));
  const sum = weights.reduce((a, b) => a + b, 0);
  let perMicrosecond = 0;
  for (let n = 1; n <= vcpus; n++) perMicrosecond += weights[n]! / sum / serviceOf(n);
  return perMicrosecond * 1000;
}

/**
 * Fits a closed queue on two points: its service and its contention.
 * Errors: RangeError where no such queue goes through both, or the points are not two.
 */
export function fitClosedQueue(a: RatePoint, b: RatePoint): ScalingModel {
  const [first, second] = inOrder(a, b);
  const unit = (contention: number, vcpus: number): number =>
    closedQueueRate({ think_us: PARALLEL_SHARE, service_us: 1, contention }, vcpus);
  const serviceFor = (contention: number): number => unit(contention, first.vcpus) / first.kiloPagesPerSecond;
  const miss = (logContention: number): number => {
    const contention = Math.exp(logContention);
    return Math.log(unit(contention, second.vcpus) / serviceFor(contention) / second.kiloPagesPerSecond);
  };
  const root = rootOf(miss, Math.log(LEAST_CONTENTION), Math.log(MOST_CONTENTION));
  if (root === undefined)
    throw new RangeError(
      `no queue has ${first.kiloPagesPerSecond} k pages/s with ${first.vcpus} vCPUs and ${second.kiloPagesPerSecond} k with ${second.vcpus}`,
    );
  const contention = Math.exp(root);
  const service_us = serviceFor(contention);
  const parameters = { think_us: PARALLEL_SHARE * service_us, service_us, contention };
  return { name: 'closed queue', parameters, rate: (vcpus) => closedQueueRate(parameters, vcpus) };
}

/**
 * Fits the universal scalability law, `λN / (1 + σ(N − 1) + κN(N − 1))`: λ is the rate of one vCPU, σ and κ go through
 * two more points. A fair baseline, with one more point to go by.
 */
export function fitUniversalScalability(one: RatePoint, a: RatePoint, b: RatePoint): ScalingModel {
  const lambda = one.kiloPagesPerSecond / one.vcpus;
  const [p, q] = inOrder(a, b);
  const rowOf = ({ vcpus: n, kiloPagesPerSecond }: RatePoint) =>
    [n - 1, n * (n - 1), (lambda * n) / kiloPagesPerSecond - 1] as const;
  const [[p1, p2, p3], [q1, q2, q3]] = [rowOf(p), rowOf(q)];
  const determinant = p1 * q2 - p2 * q1;
  const sigma = (p3 * q2 - p2 * q3) / determinant;
  const kappa = (p1 * q3 - p3 * q1) / determinant;
  return {
    name: 'universal scalability law',
    parameters: { lambda, sigma, kappa },
    rate: (n) => (lambda * n) / (1 + sigma * (n - 1) + kappa * n * (n - 1)),
  };
}

/**
 * Fits `aN^b` on two points: each doubling of the vCPUs multiplies the rate by the same factor. For exits, which
 * share no queue: what is shared is locks of the memory's, and no model of those was found that does better.
 */
export function fitPowerLaw(a: RatePoint, b: RatePoint): ScalingModel {
  const [p, q] = inOrder(a, b);
  const exponent = Math.log(q.kiloPagesPerSecond / p.kiloPagesPerSecond) / Math.log(q.vcpus / p.vcpus);
  const one = p.kiloPagesPerSecond / p.vcpus ** exponent;
  return { name: 'power law', parameters: { one, exponent }, rate: (n) => one * n ** exponent };
}

/** Holds a model against a curve. `fittedOn`: the vCPUs of the points that it was fitted on. */
export function measureFit(
  model: ScalingModel,
  curve: readonly RatePoint[],
  fittedOn: readonly number[],
): Fit {
  const predictions = curve.map((point): Prediction => {
    const predicted = model.rate(point.vcpus);
    const error = (predicted - point.kiloPagesPerSecond) / point.kiloPagesPerSecond;
    return { ...point, predicted, error, fitted: fittedOn.includes(point.vcpus) };
  });
  const errors = predictions.filter(({ fitted }) => !fitted).map(({ error }) => Math.abs(error));
  const sum = errors.reduce((a, b) => a + b, 0);
  return {
    model,
    predictions,
    meanError: errors.length > 0 ? sum / errors.length : NaN,
    largestError: Math.max(...errors),
  };
}

function inOrder(a: RatePoint, b: RatePoint): readonly [RatePoint, RatePoint] {
  for (const { vcpus, kiloPagesPerSecond } of [a, b]) {
    if (!(Number.isInteger(vcpus) && vcpus >= 1 && kiloPagesPerSecond > 0))
      throw new RangeError(`${kiloPagesPerSecond} k pages/s with ${vcpus} vCPUs is no point of a curve`);
  }
  if (a.vcpus === b.vcpus) throw new RangeError(`both points have ${a.vcpus} vCPUs`);
  return a.vcpus < b.vcpus ? [a, b] : [b, a];
}

/** A root between two bounds, the lowest that a grid shows; undefined where the sign never changes. */
function rootOf(f: (x: number) => number, low: number, high: number): number | undefined {
  const step = (high - low) / GRID;
  for (let at = 0; at < GRID; at++) {
    let [from, to] = [low + at * step, low + (at + 1) * step];
    const sign = Math.sign(f(from));
    if (sign === 0) return from;
    if (Math.sign(f(to)) === sign) continue;
    for (let half = 0; half < BISECTIONS; half++) {
      const middle = (from + to) / 2;
      if (Math.sign(f(middle)) === sign) from = middle;
      else to = middle;
    }
    return from;
  }
  return undefined;
}
