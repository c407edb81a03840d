/**
 * What happens when the source has failed for good for a page that an access waits for. Never zeros.
 *
 * - `stop`: the pager stops: every missing page is poisoned, so waiting and later accesses fail loudly; the
 *   pager emits `stopped` and refuses further work. Needs `poison`.
 * - `poison`: this page is poisoned, the rest is served. Needs `poison`.
 * - `fail`: the waiting accesses fail once, the page stays missing and is fetched at the next access. Needs
 *   `fail`.
 */
export type FailurePolicy = 'stop' | 'poison' | 'fail';

/**
 * What happens to the child's missing pages when the VMM forks: poisoned there, or handed over in a `fork`
 * event.
 */
export type ForkPolicy = 'poison' | 'hand-over';

/**
 * What an access outside the layout is answered with, in memory that is registered with the userfaultfd all
 * the same: memory that another process registered later, that grew (mremap, a stack), or that
 * MREMAP_DONTUNMAP has left behind. The pager does not know its contents. Each is reported in an
 * `outside-fault` event.
 *
 * - `refuse`: the page is poisoned, so that this access and every later one to it fail (SIGBUS, EHWPOISON);
 *   the rest is served. Without `poison` (before Linux 6.6) as `stop`, and the access waits.
 * - `zeros`: the page comes as if it were not registered: zeros, or what its file has there. Right for a
 *   process that is served whole, as CRIU restores one; wrong where the layout leaves out memory that has
 *   contents.
 * - `stop`: the access is refused, and the pager stops.
 */
export type OutsidePolicy = 'refuse' | 'zeros' | 'stop';

/** The pager's bounds and choices. All have defaults; see {@link DEFAULT_POLICY}. */
export interface PagerPolicy {
  /**
   * Pages fetched around a faulting one: an aligned window of this many pages, a power of two. 1: only the
   * page.
   */
  readonly faultAroundPages: number;
  /** Fetches in flight at once; further faults wait. Meaningful for asynchronous sources. */
  readonly maxInFlight: number;
  /**
   * Bytes that may be in flight at once though no access waits for them, meaningful for asynchronous sources:
   * about what an access that comes then has to wait behind. A chunk is cut to what is left of it, to no less
   * than a page. What the program asked for by name has this much to itself beside the prefetching.
   */
  readonly maxAhead_bytes: number;
  /** Pages in one chunk of prefetching; faults are taken between chunks. */
  readonly prefetchPages: number;
  /** Faults taken in one batch. */
  readonly batchRows: number;
  /**
   * How often a failed fetch is tried again, at most, before {@link onSourceFailure}. An answer of the wrong
   * length is tried again three times at most.
   */
  readonly retries: number;
  /**
   * For how long a failed fetch is tried again, at most: pauses and time-outs together. By default a source
   * may refuse for a minute before an access fails: an outage of 30 s, of a storage server that is restarted,
   * is survived.
   */
  readonly retryFor_ms: number;
  /** Pause before the first retry, doubled each time, up to {@link maxRetryDelay_ms}. */
  readonly retryDelay_ms: number;
  readonly maxRetryDelay_ms: number;
  /**
   * How long a fetch may take before it counts as failed. Also the time after which a resolver that does not
   * come back from a synchronous source is abandoned. A time in which the process is stopped does not count.
   */
  readonly sourceTimeout_ms: number;
  /**
   * How long opening the source may take before `openPager` rejects, the start of its thread included.
   * Default: as {@link sourceTimeout_ms}, and 5 s at least.
   */
  readonly openTimeout_ms: number;
  readonly onSourceFailure: FailurePolicy;
  readonly onFork: ForkPolicy;
  readonly onOutsideFault: OutsidePolicy;
  /**
   * How the resolver waits for faults: asleep in the kernel (after polling for some microseconds, where
   * faults follow each other), or spinning on a core of its own.
   */
  readonly wait: 'block' | 'spin';
  /**
   * Which thread a resolver runs on.
   *
   * - `auto`: resolvers of asynchronous sources share the threads of their source. A synchronous source has a
   *   thread of its own until 16 have one, and then shares one with up to 15 of the same source. The sources
   *   of `demand-paging/sources`, and others that say that they may share, share when four have one each.
   * - `own`: a thread of its own, whatever the source.
   * - `shared`: with the resolvers of other pagers that ask for it with the same source, even where the
   *   source is synchronous; then a read that takes long delays all of these, and a fault costs a turn of an
   *   event loop besides.
   *
   * Ports that open in this isolate ignore it.
   */
  readonly thread: 'auto' | 'own' | 'shared';
  /** Events in flight to the control thread at once; further droppable ones are dropped and counted. */
  readonly maxEvents: number;
}

export const DEFAULT_POLICY: PagerPolicy = {
  faultAroundPages: 16,
  maxInFlight: 64,
  maxAhead_bytes: 4 * 2 ** 20,
  prefetchPages: 256,
  batchRows: 64,
  retries: 100,
  retryFor_ms: 60_000,
  retryDelay_ms: 10,
  maxRetryDelay_ms: 1000,
  sourceTimeout_ms: 45_000,
  openTimeout_ms: 45_000,
  onSourceFailure: 'stop',
  onFork: 'poison',
  onOutsideFault: 'refuse',
  wait: 'block',
  thread: 'auto',
  maxEvents: 1024,
};

/** The start of a thread takes a while on a busy host. */
const LEAST_OPEN_MS = 5000;

/** The longest time a timer of Node's can be set to. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Fills in defaults. Throws RangeError naming the option that is out of bounds. */
export function completePolicy(given: Partial<PagerPolicy> = {}): PagerPolicy {
  const unknown = Object.keys(given).filter((name) => !(name in DEFAULT_POLICY));
  if (unknown.length > 0) throw new RangeError(`the policy has no ${unknown.join(', ')}`);
  const { sourceTimeout_ms = DEFAULT_POLICY.sourceTimeout_ms } = given;
  const openTimeout_ms = given.openTimeout_ms ?? Math.max(LEAST_OPEN_MS, sourceTimeout_ms);
  const policy = { ...DEFAULT_POLICY, ...given, openTimeout_ms };
  const atLeast = (name: keyof PagerPolicy, least: number): void => {
    const value = policy[name];
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least) {
      throw new RangeError(`the policy's ${name} is ${String(value)}; it takes a whole number from ${least}`);
    }
  };
  for (const name of [
    'faultAroundPages',
    'maxInFlight',
    'maxAhead_bytes',
    'prefetchPages',
    'batchRows',
    'sourceTimeout_ms',
    'openTimeout_ms',
    'maxEvents',
  ] as const)
    atLeast(name, 1);
  for (const name of ['retries', 'retryFor_ms', 'retryDelay_ms', 'maxRetryDelay_ms'] as const)
    atLeast(name, 0);
  for (const name of ['sourceTimeout_ms', 'openTimeout_ms', 'retryDelay_ms', 'maxRetryDelay_ms'] as const) {
    if (policy[name] > MAX_TIMER_MS)
      throw new RangeError(`the policy's ${name} is ${policy[name]}; a timer takes at most ${MAX_TIMER_MS}`);
  }
  if ((policy.faultAroundPages & (policy.faultAroundPages - 1)) !== 0) {
    throw new RangeError(
      `the policy's faultAroundPages is ${policy.faultAroundPages}; it takes a power of two`,
    );
  }
  oneOf('onSourceFailure', policy.onSourceFailure, ['stop', 'poison', 'fail']);
  oneOf('onFork', policy.onFork, ['poison', 'hand-over']);
  oneOf('onOutsideFault', policy.onOutsideFault, ['refuse', 'zeros', 'stop']);
  oneOf('wait', policy.wait, ['block', 'spin']);
  oneOf('thread', policy.thread, ['auto', 'own', 'shared']);
  if (policy.wait === 'spin' && policy.thread === 'shared')
    throw new RangeError("the policy's wait 'spin' takes a thread of its own: not thread 'shared'");
  return policy;
}

function oneOf(name: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value))
    throw new RangeError(`the policy's ${name} is '${value}'; it takes ${allowed.join(', ')}`);
}
