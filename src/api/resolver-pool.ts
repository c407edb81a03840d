import { availableParallelism } from 'node:os';
import { type MessagePort, type Worker } from 'node:worker_threads';
import { DemandPagingError } from './error.js';
import { startThread, threadEnded } from './package-entry.js';
import { type PagerPolicy } from './policy.js';
import { type ResolverWorkerPort } from './resolver-thread.js';
import { isModuleSource, isPortSource, type SourceRef } from './source.js';

/** Most resolvers of this isolate that have a thread to themselves because their source is synchronous. */
const OWN_THREADS = {
  /** Of sources that may share one. */
  ours: 4,
  /** Of other modules, whose reads may wait for anything. */
  others: 16,
} as const;
/** A further thread for the resolvers of one source is started when each it has serves so many. */
const RESOLVERS_PER_THREAD = 16;
/** Most threads that the resolvers of one source share, where its reads are not expected to block them. */
const SHARED_THREADS = Math.max(1, Math.floor(availableParallelism() / 2));

/** What runs on a thread, as the thread sees it. */
export interface Resident {
  /**
   * The thread runs no more code. `ownThread`: it served no other resolver. `blamed`: it was ended because of
   * one, which is known.
   */
  threadEnded(error: DemandPagingError, why: { readonly ownThread: boolean; readonly blamed: boolean }): void;
}

type SourceKind = 'synchronous' | 'asynchronous';

/** Where a resolver is to run. */
export interface Placement {
  /** The only one on its thread, which then may sleep in the port. */
  readonly ownThread: boolean;
  /** Resolvers of one key share threads. */
  readonly key: string;
  /** A synchronous source may share a thread. */
  readonly anySource: boolean;
  /** Its reads may wait for long: as many threads as 16 resolvers each need. */
  readonly mayWait?: boolean;
  /**
   * Must be called: what the source turned out to be when it was opened, and where; or, with no arguments,
   * that it could not be opened.
   */
  opened(kind?: SourceKind, thread?: ResolverThread): void;
}

/** How long the opening of a source is waited for by others of the same module. */
const LEARN_MS = 1000;

/** Sources that run no code of the user's share threads, whichever they are. */
const OURS = '';

const shared = new Map<string, Set<ResolverThread>>();
/** Those that have a thread of their own until there are too many of them. */
const own = { ours: new Set<Placement>(), others: new Set<Placement>() } as const;
/** What sources by module turned out to be. */
const known = new Map<string, SourceKind>();
/** Sources by module that are being opened for the first time. */
const learning = new Map<string, Promise<void>>();

/**
 * Where the resolver of a source runs. Waits for a moment while another resolver finds out what kind the same
 * module's source is.
 *
 * - An asynchronous source shares the threads of its module and export: its resolver turns on the thread's
 *   event loop. So the number of threads does not grow with the number of pagers, and what a source's code
 *   does to its thread (blocks it, ends it) affects no other module.
 * - A synchronous source has a thread of its own, which sleeps in the kernel: a read that takes long delays
 *   nothing else. When 16 have one, it shares one with up to 15 others of its module and export.
 * - One that says that it may share ({@link ModuleSourceRef.mayShare}) has one while fewer than 4 have; then
 *   it shares.
 */
export async function placementOf(source: SourceRef, policy: PagerPolicy): Promise<Placement> {
  const thread = policy.wait === 'spin' ? 'own' : policy.thread; // it has a core of its own
  const key = keyOf(source);
  const opened: Placement['opened'] = (kind, on) => {
    if (kind) known.set(key, kind);
    if (on && kind === 'asynchronous') share(key, on); // it can take more
  };
  const ignored: Placement['opened'] = () => {};
  if (thread !== 'auto') return { ownThread: thread === 'own', key, anySource: true, opened: ignored };
  if (isPortSource(source)) return { ownThread: false, key, anySource: true, opened: ignored };
  if (key === OURS) {
    if (own.ours.size >= OWN_THREADS.ours) return { ownThread: false, key, anySource: true, opened: ignored };
    return counted('ours', { ownThread: true, key, anySource: true, opened: ignored });
  }
  for (let first = learning.get(key); first && !known.has(key); first = learning.get(key)) await first;
  const expects = known.get(key);
  if (expects === 'asynchronous') return { ownThread: false, key, anySource: false, opened };
  if (expects === 'synchronous') {
    if (own.others.size >= OWN_THREADS.others)
      return { ownThread: false, key: `${key} synchronous`, anySource: true, mayWait: true, opened: ignored };
    return counted('others', { ownThread: true, key, anySource: false, opened });
  }
  // The first that opens it finds out, on a thread of its own.
  const settle = learn(key);
  return counted('others', {
    ownThread: true,
    key,
    anySource: false,
    opened(kind, on) {
      opened(kind, on);
      settle();
    },
  });
}

/**
 * Counted at once, because many may be opened in one turn; until its thread ends, or it proves to be
 * asynchronous.
 */
function counted(kind: keyof typeof own, placement: Placement): Placement {
  const counts: Placement = {
    ...placement,
    opened(found, on) {
      placement.opened(found, on);
      if (found !== 'synchronous' && !(found && kind === 'ours')) own[kind].delete(counts);
    },
  };
  own[kind].add(counts);
  return counts;
}

/**
 * Other openings wait until the answer is called; or not much longer, where the source that is being opened
 * hangs.
 */
function learn(key: string): () => void {
  let settle = (): void => {};
  const learnt = new Promise<void>((resolve) => {
    settle = () => {
      clearTimeout(bound);
      if (learning.get(key) === learnt) learning.delete(key);
      resolve();
    };
  });
  const bound = setTimeout(settle, LEARN_MS);
  learning.set(key, learnt);
  return settle;
}

/**
 * Where a resolver goes on whose thread was ended because of another: apart from that one, or, if it is not
 * known, from all.
 */
export function placementAfter({ key, mayWait = false }: Placement, blamed: boolean): Placement {
  return { ownThread: !blamed && key !== OURS, key, anySource: true, mayWait, opened: () => {} };
}

function keyOf(source: SourceRef): string {
  if (!isModuleSource(source) || source.mayShare) return OURS;
  return `${source.module}#${source.export}`;
}

function share(key: string, thread: ResolverThread): void {
  if (thread.ended) return;
  const threads = shared.get(key) ?? new Set();
  shared.set(key, threads.add(thread));
}

/** The thread for a resolver: one that it shares, or a new one. */
export function threadFor(placement: Placement): ResolverThread {
  const { ownThread, key, mayWait } = placement;
  if (ownThread)
    return new ResolverThread(() => [own.ours, own.others].forEach((set) => set.delete(placement)));
  const threads = [...(shared.get(key) ?? [])].sort((a, b) => a.count - b.count);
  const [least] = threads;
  const most = mayWait ? Infinity : SHARED_THREADS;
  if (least && (threads.length >= most || least.count < RESOLVERS_PER_THREAD)) return least;
  const thread = new ResolverThread();
  share(key, thread);
  return thread;
}

/**
 * A thread on which resolvers run: one, or, turning on its event loop, many. It ends when the last has left.
 */
export class ResolverThread {
  readonly #worker: Worker;
  readonly #residents = new Set<Resident>();
  readonly #exited: Promise<void>;
  readonly #onEnd: () => void;
  #ending = false;
  #ended = false;
  #blamed = false;

  constructor(onEnd: () => void = () => {}) {
    this.#onEnd = onEnd;
    this.#worker = startThread('api/resolver-worker', { stdout: false });
    this.#worker.unref();
    let cause: unknown;
    this.#worker.on('error', (thrown) => (cause = thrown));
    this.#exited = new Promise((resolve) =>
      this.#worker.on('exit', () => {
        this.#end(threadEnded("the resolver's thread ended", cause));
        resolve();
      }),
    );
  }

  /** Resolvers on it. */
  get count(): number {
    return this.#residents.size;
  }

  /** It runs no more code, or is about to. */
  get ended(): boolean {
    return this.#ended || this.#ending;
  }

  open(resident: Resident, control: MessagePort): void {
    this.#residents.add(resident);
    this.#worker.postMessage({ control } satisfies ResolverWorkerPort, [control]);
  }

  /**
   * The resolver has ended. Its thread goes on for the others, or ends with it: when this resolves, the
   * thread has ended or is left behind.
   */
  async leave(resident: Resident, bound_ms: number): Promise<void> {
    this.#residents.delete(resident);
    if (this.count === 0) await this.terminate(bound_ms);
  }

  /**
   * Ends the thread: no descriptor and no stack of it is left then. A thread inside a native call that does
   * not return cannot be ended: after `bound_ms` it is left behind, and runs no more of this code. `blamed`:
   * because of a resolver.
   */
  async terminate(bound_ms: number, blamed = false): Promise<void> {
    this.#ending = true;
    this.#unshare(); // none comes any more
    this.#blamed ||= blamed;
    const error = new DemandPagingError('HANDLER_DIED', "the resolver's thread was ended");
    const left = new Promise<void>((resolve) => (this.#leftBehind = resolve));
    const bound = setTimeout(() => this.#end(error), bound_ms);
    void this.#worker.terminate();
    await Promise.race([this.#exited, left]);
    clearTimeout(bound);
  }

  #leftBehind: () => void = () => {};

  #end(error: DemandPagingError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#unshare();
    const residents = [...this.#residents];
    this.#residents.clear();
    const why = { ownThread: residents.length === 1, blamed: this.#blamed };
    for (const resident of residents) resident.threadEnded(error, why);
    this.#leftBehind();
  }

  #unshare(): void {
    this.#onEnd();
    for (const [key, threads] of shared) {
      threads.delete(this);
      if (threads.size === 0) shared.delete(key);
    }
  }
}
