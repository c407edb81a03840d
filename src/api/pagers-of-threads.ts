import { readFileSync, readlinkSync } from 'node:fs';
import { BroadcastChannel, isMainThread, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { importPort, type PortPlace, requirePort } from './backend.js';
import { CrashCleanup } from './crash-cleanup.js';
import { asDemandPagingError, DemandPagingError } from './error.js';
import { type LayoutShape, MemoryLayout } from './layout.js';
import { type PageRange } from './address.js';
import { type Supports } from './capability.js';
import { PageStates, type SharedPageStates } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { immediateExit, whenProcessEnds, whenProcessIsEnding } from './process-end.js';

/** Reaches every thread of this process that has loaded this module. */
const CHANNEL = 'demand-paging: pagers of worker threads';
/** How often the main thread looks whether a thread that has a pager lives. */
const LOOK_MS = 250;

/** What the main thread needs to know of a pager that a worker thread has opened. Cloneable. */
export interface PagerOfThread {
  readonly id: string;
  /** The thread, if /proc names it; see {@link threadOfKernel}. */
  readonly thread: string | undefined;
  readonly layout: LayoutShape;
  readonly states: SharedPageStates;
  readonly supports: Supports;
  readonly policy: PagerPolicy;
  readonly shards: readonly {
    readonly pages: readonly PageRange[];
    readonly place: Extract<PortPlace, { where: 'worker' }>;
    readonly words: Int32Array<SharedArrayBuffer>;
  }[];
  /** Threads of this process may be blocked in page faults of it, which never end by themselves. */
  readonly isOwnMemory: boolean;
}

type Message =
  | { readonly kind: 'opened'; readonly pager: PagerOfThread }
  | { readonly kind: 'closed'; readonly id: string }
  | { readonly kind: 'ask' };

/** A pager that the main thread knows of. */
export interface AnnouncedPager {
  /** Its regions have changed. */
  again(): void;
  closed(): void;
}

// ── a worker thread ──

const opened = new Map<string, PagerOfThread>();
let announcer: BroadcastChannel | undefined;

/**
 * Announces a pager of this worker thread to the main thread, again when its regions have changed, and when
 * it is closed. The end of a worker thread is not always seen by its own code: not when it is terminated, and
 * not when the main thread calls process.exit(), which ends threads one by one and waits for each, though one
 * may be blocked in a page fault that only the pager can resolve. The main thread sees both. It must have
 * loaded this library to receive the announcement.
 */
export function announcePager(describe: () => PagerOfThread): AnnouncedPager {
  if (isMainThread) return { again: () => {}, closed: () => {} }; // it sees its own end
  announcer ??= announcing();
  const channel = announcer;
  const say = (pager: PagerOfThread): void => {
    opened.set(pager.id, pager);
    channel.postMessage({ kind: 'opened', pager } satisfies Message);
  };
  const first = describe();
  say(first);
  return {
    again: () => {
      if (opened.has(first.id)) say(describe());
    },
    closed: () => {
      if (!opened.delete(first.id)) return;
      channel.postMessage({ kind: 'closed', id: first.id } satisfies Message);
      if (opened.size > 0) return;
      channel.close();
      announcer = undefined;
    },
  };
}

function announcing(): BroadcastChannel {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = (event) => {
    if ((event as { readonly data: Message }).data.kind !== 'ask') return;
    for (const pager of opened.values()) channel.postMessage({ kind: 'opened', pager } satisfies Message);
  };
  channel.unref();
  return channel;
}

/** This thread, as the kernel names it, with when it began: numbers are used again. */
export function threadOfKernel(): string | undefined {
  try {
    const [, task] = readlinkSync('/proc/thread-self').split('/task/');
    return `${task} ${beginOf(task!)}`;
  } catch {
    return undefined; // no /proc: the end of this thread goes unseen
  }
}

/** Field 22 of proc_pid_stat(5); the name before it may contain anything. */
const beginOf = (task: string): string =>
  readFileSync(`/proc/self/task/${task}/stat`, 'latin1').split(') ').at(-1)!.split(' ')[19]!;

function lives(thread: string | undefined): boolean {
  if (thread === undefined) return true;
  const [task, begin] = thread.split(' ') as [string, string];
  try {
    return beginOf(task) === begin;
  } catch {
    return false;
  }
}

// ── the main thread ──

/** A worker thread's pager, seen from the main thread. */
class WatchedPager {
  readonly #pager: PagerOfThread;
  readonly #cleanups: readonly CrashCleanup[];
  readonly #unregister: () => void;

  constructor(pager: PagerOfThread) {
    const { supports, policy, shards } = pager;
    const layout = new MemoryLayout(pager.layout);
    const states = new PageStates(pager.states);
    this.#pager = pager;
    this.#cleanups = shards.map(({ pages, place, words }) => {
      const shard = { pages: pages[0]!, port: place, kick: () => {} };
      void importPort(place).catch(() => {}); // said when it is used
      const cleanup = new CrashCleanup({ layout, states, shard, supports, policy }, words);
      cleanup.pages.splice(0, 1, ...pages);
      return cleanup;
    });
    this.#unregister = whenProcessEnds({
      prepare: () => this.#immediate?.prepare(),
      cleanUp: () => this.#cleanUp((cleanup, error) => cleanup.atProcessEnd(error), 'the process ends'),
      exit: pager.isOwnMemory ? (status) => this.#immediate!.exit(status) : undefined,
    });
  }

  /** Whether its thread lives. If not, what it has left waiting is let go. */
  look(): boolean {
    const { thread } = this.#pager;
    if (lives(thread)) return true;
    try {
      this.#cleanUp((cleanup, error) => cleanup.abort(error), 'the thread that had opened a pager has ended');
    } catch (thrown) {
      const { code, message } = asDemandPagingError(thrown, 'HANDLER_DIED', 'what waits could not be let go');
      process.emitWarning(`the thread that had opened a pager has ended: ${message}`, { code });
    }
    return false;
  }

  unwatch(): void {
    this.#unregister();
  }

  #cleanUp(act: (cleanup: CrashCleanup, error: DemandPagingError) => void, why: string): void {
    const error = new DemandPagingError('HANDLER_DIED', why);
    for (const cleanup of this.#cleanups) if (!cleanup.done) act(cleanup, error);
  }

  /** How to end the process at once. The code that opens ports of this memory has loaded it. */
  get #immediate(): ReturnType<typeof immediateExit> {
    if (!this.#pager.isOwnMemory) return undefined;
    if (!immediateExit()) for (const { place } of this.#pager.shards) requirePort(place);
    return immediateExit();
  }
}

const watched = new Map<string, WatchedPager>();
let watch: NodeJS.Timeout | undefined;

function hear(message: Message): void {
  if (message.kind === 'opened') {
    watched.get(message.pager.id)?.unwatch();
    watched.set(message.pager.id, new WatchedPager(message.pager));
  } else if (message.kind === 'closed') unwatch(message.id);
  if (watched.size > 0) watch ??= setInterval(look, LOOK_MS).unref();
}

function unwatch(id: string): void {
  watched.get(id)?.unwatch();
  watched.delete(id);
  if (watched.size > 0) return;
  clearInterval(watch);
  watch = undefined;
}

function look(): void {
  for (const [id, pager] of watched) if (!pager.look()) unwatch(id);
}

/**
 * Listens from the moment that this library is loaded: a pager may be opened, and the process end, before an
 * event loop turns.
 */
function listen(): void {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = (event) => hear((event as { readonly data: Message }).data);
  channel.unref();
  channel.postMessage({ kind: 'ask' } satisfies Message);
  whenProcessIsEnding(() => {
    const port = channel as unknown as MessagePort; // which Node takes, too
    for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port))
      hear(got.message as Message);
  });
}

if (isMainThread) listen();
