import fc, { type Arbitrary } from 'fast-check';
import { type PagerPolicy } from '../api/index.js';
import { AccessorPool } from './accessor-pool.js';
import { type Failure, PropertyFailure } from './failure.js';
import { openManifest } from './manifest.js';
import { type AnyProperty, type Manifest, type Property } from './property.js';
import { RealEnvironment } from './real-environment.js';
import { type PropertyResult, type Replay } from './result.js';
import { type Setting } from './environment.js';
import { SteppedEnvironment } from './stepped-environment.js';
import { type Subject } from './subject.js';
import { type TraceEntry } from './trace.js';

export interface CheckOptions {
  /** Runs of each property. Default: 1000 on a deterministic subject, 20 on a real one. */
  readonly runs?: number;
  /** Where to start; default: by chance, and printed on failure. */
  readonly seed?: number;
  /** Which run of a failed check to repeat, as printed. */
  readonly path?: string;
  /**
   * Tells faults apart: where nothing goes on any more, every accessor is woken, unless waking is what the
   * property is about. For checking the suite itself; hides hangs. Default false.
   */
  readonly nudge?: boolean;
  /** Whether a failure is made smaller before it is reported. Default true on a deterministic subject. */
  readonly shrink?: boolean;
  /**
   * After so many milliseconds no more runs are begun and no smaller counterexample is looked for. Default: no bound.
   * A property that has held until then is reported as held, with the runs that there were.
   */
  readonly within_ms?: number;
  /** Told when a run begins, and of each event of it as it happens: what is left to say if it never ends. */
  readonly watch?: { readonly run: () => void; readonly event: (entry: TraceEntry) => void };
}

const RUNS = { stepped: 1000, real: 20 };
/** Closing takes milliseconds, unless an access waits for ever. */
const CLOSING_MS = 40_000;
/** Choices of a schedule; once they have run out, every thread gets a turn. */
const MOST_CHOICES = 160;

/** Bounds and choices of the pager, small enough to be met. */
const policies: Arbitrary<Partial<PagerPolicy>> = fc.record({
  faultAroundPages: fc.constantFrom(1, 2, 4),
  maxInFlight: fc.constantFrom(1, 2, 8),
  prefetchPages: fc.constantFrom(1, 3),
  batchRows: fc.constantFrom(1, 2, 8),
});

/** Checks one property on a subject. Never throws for a property that does not hold. */
export async function checkProperty(
  property: AnyProperty,
  subject: Subject,
  options: CheckOptions = {},
): Promise<PropertyResult> {
  const manifest = await openManifest(subject);
  return check(property as unknown as Property<unknown>, subject, manifest, options);
}

/** Checks properties one after the other. */
export async function checkProperties(
  properties: readonly AnyProperty[],
  subject: Subject,
  options: CheckOptions = {},
): Promise<readonly PropertyResult[]> {
  const results: PropertyResult[] = [];
  for (const property of properties) results.push(await checkProperty(property, subject, options));
  return results;
}

async function check(
  property: Property<unknown>,
  subject: Subject,
  manifest: Manifest,
  options: CheckOptions,
): Promise<PropertyResult> {
  const { name, part, claim } = property;
  const reason = property.unless(manifest);
  if (reason !== undefined) return { name, part, claim, outcome: 'not-applicable', reason };
  const accessors = subject.deterministic ? undefined : new AccessorPool(subject);
  let last: Failed | undefined;
  let count = 0;
  // A run that has begun is never cut short: threads would go on in it. Those after the deadline are not played.
  const deadline = performance.now() + (options.within_ms ?? Infinity);
  const predicate = async (
    plan: unknown,
    policy: Partial<PagerPolicy>,
    synchronous: boolean,
    choices: Uint8Array,
  ): Promise<void> => {
    if (performance.now() > deadline) return;
    count++;
    const setting: Setting = {
      level: property.level,
      pages: property.pages,
      policy: { ...policy, ...property.policy?.(plan) },
      synchronous: property.synchronous?.(plan) ?? synchronous,
      fatalSource: property.fatalSource ?? false,
    };
    const failure = await runOnce(
      property,
      subject,
      manifest,
      { plan, setting, choices, accessors },
      options,
    );
    if (failure === undefined) return;
    last = failure;
    throw new PropertyFailure(failure.failure);
  };
  const numRuns = options.runs ?? (subject.deterministic ? RUNS.stepped : RUNS.real);
  const choices = subject.deterministic
    ? fc.uint8Array({ maxLength: MOST_CHOICES, size: 'max' })
    : fc.constant(new Uint8Array(0));
  const result = await fc.check(
    fc.asyncProperty(property.plan(manifest), policies, fc.boolean(), choices, predicate),
    {
      numRuns,
      ...(options.seed !== undefined && { seed: options.seed }),
      ...(options.path !== undefined && { path: options.path }),
      // What a real schedule does not repeat cannot be made smaller.
      endOnFailure: !(options.shrink ?? subject.deterministic),
    },
  );
  if (!last?.stays) await accessors?.stop();
  if (!result.failed) return { name, part, claim, outcome: 'holds', runs: count };
  const { seed, numRuns: runs } = result;
  // Without a failure of a run it is the suite's own, or the generator's.
  const { failure, trace, plan, setting } = last ?? {
    failure: { kind: 'thrown', error: String(result.errorInstance) } satisfies Failure,
    trace: [],
    plan: '',
    setting: '',
  };
  const replay: Replay = { seed, path: result.counterexamplePath ?? '', plan, setting };
  return { name, part, claim, outcome: 'fails', failure, trace, runs, replay };
}

/** A run in which a property does not hold. */
interface Failed extends Pick<Replay, 'plan' | 'setting'> {
  readonly failure: Failure;
  readonly trace: readonly TraceEntry[];
  /** An access waits for ever, and its thread cannot be ended. */
  readonly stays: boolean;
}

interface Run {
  readonly plan: unknown;
  readonly setting: Setting;
  readonly choices: Uint8Array;
  /** Where threads are real. */
  readonly accessors: AccessorPool | undefined;
}

/** Makes one run: what went wrong, with its trace, or undefined. */
async function runOnce(
  property: Property<unknown>,
  subject: Subject,
  manifest: Manifest,
  run: Run,
  { nudge = false, watch }: CheckOptions,
): Promise<Failed | undefined> {
  const { plan, setting, choices, accessors } = run;
  const environment = subject.deterministic
    ? await SteppedEnvironment.open(subject, setting, choices, { nudge: nudge && !property.coversWaking })
    : await RealEnvironment.open(subject, setting, accessors!);
  watch?.run();
  environment.trace.onEvent = watch?.event;
  let failure: Failure | undefined;
  try {
    await environment.run(property.body(environment, plan, manifest));
  } catch (error) {
    failure = error instanceof PropertyFailure ? error.failure : { kind: 'thrown', error: textOf(error) };
  }
  const trace = failure && environment.trace.entries; // closing is no part of it
  const stuck = await closing(environment);
  if (stuck && trace)
    return failedRun(
      failure!,
      [...trace, { ...stuck, actor: { kind: 'suite' }, moment: environment.moment }],
      run,
      true,
    );
  if (stuck) return failedRun(stuck, environment.trace.entries, run, true);
  return failure && failedRun(failure, trace!, run, false);
}

const failedRun = (
  failure: Failure,
  trace: readonly TraceEntry[],
  { plan, setting }: Run,
  stays: boolean,
): Failed => ({ failure, trace, plan: fc.stringify(plan), setting: fc.stringify(setting), stays });

const textOf = (thrown: unknown): string =>
  thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);

type CloseStuck = Extract<Failure, { kind: 'close-stuck' }>;

/** Closes an environment: undefined, or what that came to if it does not end. Where nothing is real it does. */
async function closing(environment: RealEnvironment | SteppedEnvironment): Promise<CloseStuck | undefined> {
  const closed = environment.close();
  if (environment.exact) {
    await closed;
    return undefined;
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<CloseStuck>((resolve) => {
    timer = setTimeout(resolve, CLOSING_MS, { kind: 'close-stuck', after_ms: CLOSING_MS });
  });
  const end = await Promise.race([closed.then(() => undefined), late]);
  clearTimeout(timer);
  return end;
}
