import { type PageRange } from './address.js';
import { type FaultPort, openPortNow, type Shard } from './backend.js';
import { type Supports } from './capability.js';
import { DemandPagingError } from './error.js';
import { InstallLock } from './install-lock.js';
import { type MemoryLayout } from './layout.js';
import { type MissingAtClose, type ResolverEvent } from './resolver-protocol.js';
import { type PageStates } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { WORD } from './resolver-thread.js';
import { Resolver } from './resolver.js';
import { Counters } from './statistics.js';

/** How long a batch in progress is waited for when the process ends. */
const BATCH_WAIT_MS = 1000;
/** How long memory that is changing is waited for then: by another process, which may be stopped. */
const CHANGE_WAIT_MS = 2000;

export interface CrashCleanupOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  readonly shard: Shard;
  readonly supports: Supports;
  readonly policy: PagerPolicy;
}

/**
 * Crash cleanup of one shard, by the control thread, where its resolver did not or cannot let the waiting
 * accesses go: the resolver's thread has ended, has never begun, or the process ends. Everything is done
 * inside the call, because at the process's end no event loop turns.
 *
 * A userfaultfd takes ioctls from any thread. Of two threads that resolve a page the kernel carries out one
 * ioctl and answers EEXIST to the other, or contents replace poison: the page ends with its contents or with
 * poison, whichever comes first.
 */
export class CrashCleanup {
  /** Shared with the resolver's thread; see {@link WORD}. */
  readonly words: Int32Array<SharedArrayBuffer>;
  /** The pages that are served: the shard's at first. Adding and removing regions changes them. */
  readonly pages: PageRange[];
  readonly #o: CrashCleanupOptions;

  /** `words`: those of a resolver that another thread has started. */
  constructor(options: CrashCleanupOptions, words = new Int32Array(new SharedArrayBuffer(WORD.length * 4))) {
    this.#o = options;
    this.pages = [options.shard.pages];
    this.words = words;
  }

  /**
   * The resolver has let every waiting access go: it has carried out its `end` command, or has cleaned up
   * itself.
   */
  get done(): boolean {
    return Atomics.load(this.words, WORD.settled) === 1;
  }

  /** Not done after all: the resolver has ended, and left what waits to the attachment's end. */
  isDue(): void {
    Atomics.store(this.words, WORD.settled, 0);
  }

  /**
   * Poisons every missing page and wakes every waiter. Precondition: no resolver runs. Errors: as opening a
   * port.
   */
  abort(error: DemandPagingError, notify: (event: ResolverEvent) => void = () => {}): void {
    this.#resolve(this.#o.states, notify, (resolver) => resolver.abort(error));
  }

  /** Carries out an `end` command that the resolver has not carried out. As {@link abort}. */
  end(missing: MissingAtClose): void {
    let failure: DemandPagingError | undefined;
    this.#resolve(
      this.#o.states,
      () => {},
      (resolver) =>
        resolver.execute({ command: 'end', missing }, (reply) => {
          if (!reply.ok) failure = DemandPagingError.fromPlain(reply.error);
        }),
    );
    if (failure) throw failure;
  }

  /**
   * As {@link abort}, while the resolver's thread still runs: it installs nothing any more once this has
   * begun. What it still reads or marks meanwhile does not matter: this works on a copy of the states, made
   * after its last batch. A page that was installed before that is present; one that was removed and is not
   * marked yet is poisoned, which is loud.
   */
  atProcessEnd(error: DemandPagingError): void {
    if (this.done) return;
    new InstallLock(this.words, WORD.installing).take(BATCH_WAIT_MS);
    const deadline_ms = performance.now() + CHANGE_WAIT_MS;
    this.#resolve(
      this.#o.states.copy(),
      () => {},
      (resolver) => resolver.abort(error, deadline_ms),
    );
  }

  #resolve(
    states: PageStates,
    notify: (event: ResolverEvent) => void,
    act: (resolver: Resolver) => void,
  ): void {
    const { layout, shard, supports, policy } = this.#o;
    const port: FaultPort = openPortNow(shard.port);
    try {
      const counters = new Counters();
      const source = { synchronous: true, length: 0, read: () => 0 };
      act(
        new Resolver({
          layout,
          states,
          pages: this.pages,
          port,
          supports,
          source,
          policy,
          counters,
          notify,
        }),
      );
      Atomics.store(this.words, WORD.settled, 1);
    } finally {
      port.close();
    }
  }
}
