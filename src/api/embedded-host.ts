import { type PageRange } from './address.js';
import { type FaultPort, openPort } from './backend.js';
import { DemandPagingError, asDemandPagingError } from './error.js';
import { type Command, type ResolverEvent } from './resolver-protocol.js';
import { type HostOptions, type ResolverHost, settleCall } from './resolver-host.js';
import { unlessAborted } from './opening.js';
import { Signal, runResolver } from './resolver-loop.js';
import { Resolver } from './resolver.js';
import { type PageSource, checkCovers, openSource } from './source.js';
import { Counters } from './statistics.js';

/** Starts a resolver in this isolate, sharing its event loop: for ports that live here. */
export async function startEmbedded(options: HostOptions, signal: AbortSignal): Promise<ResolverHost> {
  const source = await unlessAborted(openSource(options.source), signal, (late) => void late.close?.());
  let port: FaultPort;
  try {
    checkCovers(source.length, options.layout.regions);
    port = await openPort(options.shard.port);
  } catch (error) {
    await source.close?.();
    throw error;
  }
  return new EmbeddedHost(options, source, port);
}

class EmbeddedHost implements ResolverHost {
  readonly shard;
  readonly pages: PageRange[];
  readonly counters = new Counters();
  readonly sourceLength: number;
  readonly ended: Promise<DemandPagingError | undefined>;
  readonly #resolver: Resolver;
  readonly #signal = new Signal();
  #closedError: DemandPagingError | undefined;
  /** Rejects the commands that have no answer yet. */
  readonly #open = new Set<(error: Error) => void>();

  constructor(options: HostOptions, source: PageSource, port: FaultPort) {
    this.shard = options.shard;
    this.pages = options.cleanup.pages;
    this.sourceLength = source.length;
    this.#resolver = new Resolver({
      ...options,
      pages: this.pages,
      port,
      source,
      counters: this.counters,
      notify: later(options.notify),
      latency: (elapsed_ns) => options.latency.record(elapsed_ns),
    });
    this.ended = this.#run(options, source, port);
  }

  send(command: Command): Promise<unknown> {
    if (this.#closedError) return Promise.reject(this.#closedError);
    return new Promise((resolve, reject) => {
      this.#open.add(reject);
      this.#resolver.execute(command, (reply) => {
        this.#open.delete(reject);
        settleCall(reply, resolve, reject);
      });
      this.#signal.set();
    });
  }

  abandon(error: DemandPagingError): void {
    if (!this.#closedError) this.#resolver.abort(error);
  }

  async #run(
    options: HostOptions,
    source: PageSource,
    port: FaultPort,
  ): Promise<DemandPagingError | undefined> {
    let unsettled: DemandPagingError | undefined;
    try {
      await runResolver({
        resolver: this.#resolver,
        port,
        drain: () => {},
        blocking: undefined,
        signal: this.#signal,
      });
      this.#closedError = new DemandPagingError('CLOSED', 'the pager was closed');
    } catch (thrown) {
      this.#closedError = asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver failed');
      unsettled = this.#cleanUp(port, this.#closedError);
      const isPoisoned = !unsettled && options.supports.verbs.includes('poison');
      options.died(this.#closedError, isPoisoned ? 'poisoned' : 'blocked');
    } finally {
      // A command whose rows were pending when it ended is never answered.
      for (const reject of this.#open) reject(this.#closedError!);
      this.#open.clear();
      await source.close?.();
    }
    return unsettled;
  }

  /** Why accesses may still wait, if the port is what failed. */
  #cleanUp(port: FaultPort, error: DemandPagingError): DemandPagingError | undefined {
    try {
      this.#resolver.abort(error);
      return undefined;
    } catch (thrown) {
      return asDemandPagingError(thrown, 'HANDLER_DIED', 'what waits could not be let go');
    } finally {
      port.close();
    }
  }
}

/** Listeners run outside the turn that has something to say: they may throw, and may command the resolver. */
function later(notify: (event: ResolverEvent) => void): (event: ResolverEvent) => void {
  return (event) => queueMicrotask(() => notify(event));
}
