import fc, { type Arbitrary } from 'fast-check';
import { type PagerPolicy } from '../api/index.js';
import { AccessorPool } from './accessor-pool.js';
import { PropertyFailure } from './failure.js';
import { openManifest } from './manifest.js';
import { type AnyProperty, type Manifest, type Property, type PropertyName } from './property.js';
import { RealStage } from './real-stage.js';
import { type Setting } from './stage.js';
import { SteppedStage } from './stepped-stage.js';
import { type Subject } from './subject.js';
import { type TimelineEntry } from './timeline.js';

export interface CheckOptions {
  /** Runs of each property. Default: 1000 on a deterministic subject, 20 on a real one. */
  readonly runs?: number;
  /** Where to start; default: by chance, and printed on failure. */
  readonly seed?: number;
  /** Which run of a failed check to play again, as printed. */
  readonly path?: string;
  /**
   * Tells faults apart: where nothing goes on any more, everybody is woken, unless waking is what the
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
  readonly watch?: { readonly run: () => void; readonly note: (entry: TimelineEntry) => void };
}

/** A run in which a property does not hold: on a deterministic subject the smallest that was found. */
export interface Counterexample {
  /** What was seen, and what should have been. */
  readonly what: string;
  /** Who did what, in order, one event a line. */
  readonly story: readonly string[];
  /** What the run was made of, in words of the suite's. */
  readonly plan: string;
  readonly setting: string;
  /** With these {@link checkProperty} plays it again. */
  readonly seed: number;
  readonly path: string;
}

/** What came of checking one property. */
export type Report = {
  readonly name: PropertyName;
  readonly part: string | undefined;
  readonly claim: string;
} & (
  | { readonly outcome: 'held'; readonly runs: number }
  | { readonly outcome: 'skipped'; readonly reason: string }
  | {
      readonly outcome: 'failed';
      readonly runs: number;
      /** All of the counterexample in plain text. */
      readonly message: string;
      readonly counterexample: Counterexample;
    }
);

const RUNS = { stepped: 1000, real: 20 };
/** Closing takes milliseconds, unless somebody waits for ever. */
const CLOSING_MS = 40_000;
/** Choices of a schedule; once they have run out, everybody gets a turn. */
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
): Promise<Report> {
  const manifest = await openManifest(subject);
  return check(property as unknown as Property<unknown>, subject, manifest, options);
}

/** Checks properties one after the other. */
export async function checkProperties(
  properties: readonly AnyProperty[],
  subject: Subject,
  options: CheckOptions = {},
): Promise<readonly Report[]> {
  const reports: Report[] = [];
  for (const property of properties) reports.push(await checkProperty(property, subject, options));
  return reports;
}

async function check(
  property: Property<unknown>,
  subject: Subject,
  manifest: Manifest,
  options: CheckOptions,
): Promise<Report> {
  const { name, part, claim } = property;
  const reason = property.unless(manifest);
  if (reason !== undefined) return { name, part, claim, outcome: 'skipped', reason };
  const accessors = subject.deterministic ? undefined : new AccessorPool(subject);
  let last: Failed | undefined;
  let played = 0;
  // A run that has begun is never cut short: threads would go on in it. Those after the deadline are not played.
  const deadline = performance.now() + (options.within_ms ?? Infinity);
  const predicate = async (
    plan: unknown,
    policy: Partial<PagerPolicy>,
    synchronous: boolean,
    choices: Uint8Array,
  ): Promise<void> => {
    if (performance.now() > deadline) return;
    played++;
    const setting: Setting = {
      level: property.level,
      pages: property.pages,
      policy: { ...policy, ...property.policy?.(plan) },
      synchronous: property.synchronous?.(plan) ?? synchronous,
      fatalSource: property.fatalSource ?? false,
    };
    const failure = await playOnce(
      property,
      subject,
      manifest,
      { plan, setting, choices, accessors },
      options,
    );
    if (failure === undefined) return;
    last = failure;
    throw new PropertyFailure(failure.what);
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
  if (!result.failed) return { name, part, claim, outcome: 'held', runs: played };
  const { seed, numRuns: runs } = result;
  // Without a failure of a run it is the suite's own, or the generator's.
  const failed = last ?? {
    what: String(result.errorInstance),
    plan: '',
    setting: '',
    story: [],
    stays: false,
  };
  const { what, plan, setting, story } = failed;
  const counterexample = { what, plan, setting, story, seed, path: result.counterexamplePath ?? '' };
  const title = part ? `${name} (${part})` : name;
  const message = `${title} does not hold on ${subject.name}: ${claim}\nrun ${runs}, seed ${seed}, path '${counterexample.path}'\n${messageOf(failed)}`;
  return { name, part, claim, outcome: 'failed', runs, message, counterexample };
}

type Failed = Omit<Counterexample, 'seed' | 'path'> & {
  /** Somebody waits for ever, and his thread cannot be ended. */
  readonly stays: boolean;
};

const messageOf = ({ what, plan, setting, story }: Failed): string =>
  `${what}\nplan: ${plan}\nsetting: ${setting}\nwho did what:\n${story.join('\n')}`;

interface Run {
  readonly plan: unknown;
  readonly setting: Setting;
  readonly choices: Uint8Array;
  /** Where threads are real. */
  readonly accessors: AccessorPool | undefined;
}

/** Plays one run: what went wrong, with its timeline, or undefined. */
async function playOnce(
  property: Property<unknown>,
  subject: Subject,
  manifest: Manifest,
  run: Run,
  { nudge = false, watch }: CheckOptions,
): Promise<Failed | undefined> {
  const { plan, setting, choices, accessors } = run;
  const stage = subject.deterministic
    ? await SteppedStage.open(subject, setting, choices, { nudge: nudge && !property.judgesWaking })
    : await RealStage.open(subject, setting, accessors!);
  watch?.run();
  stage.timeline.onNote = watch?.note;
  let what: string | undefined;
  try {
    await stage.run(property.body(stage, plan, manifest));
  } catch (error) {
    what =
      error instanceof PropertyFailure
        ? error.message
        : error instanceof Error
          ? (error.stack ?? error.message)
          : String(error);
  }
  const ended = what === undefined ? undefined : stage.timeline.lines(); // closing is no part of it
  const stays = await closing(stage);
  const whats = [what, stays].filter((each) => each !== undefined);
  if (whats.length === 0) return undefined;
  return {
    what: whats.join('\n'),
    plan: fc.stringify(plan),
    setting: fc.stringify(setting),
    story: ended ?? stage.timeline.lines(),
    stays: stays !== undefined,
  };
}

/** Closes a stage: undefined, or what to say if that does not end. Where nothing is real it does. */
async function closing(stage: RealStage | SteppedStage): Promise<string | undefined> {
  const closed = stage.close();
  if (stage.exact) {
    await closed;
    return undefined;
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(resolve, CLOSING_MS, `closing did not end within ${CLOSING_MS} ms`);
  });
  const end = await Promise.race([closed.then(() => undefined), late]);
  clearTimeout(timer);
  return end;
}
