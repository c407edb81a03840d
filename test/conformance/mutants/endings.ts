import { type ResolverEvent, type ReadAnswer, Resolver } from 'demand-paging';
import { type Engine } from 'demand-paging/conformance';
import { mutant } from './mutant.js';

/** A source that fails is taken for one that gave zeros. */
export const failureTurnedToZeros = mutant({
  name: 'a source that fails gives zeros',
  breaks: 'source-failure-is-loud',
  kind: 'wrong-end',
  engine: (options): Engine => {
    const { source } = options;
    const zeros = (into: Uint8Array): number => into.fill(0).length;
    const read = (offset: number, into: Uint8Array): ReadAnswer | Promise<ReadAnswer> => {
      try {
        const answer = source.read(offset, into);
        if (typeof answer === 'number') return answer === into.length ? answer : zeros(into);
        if (!('then' in answer)) return answer;
        return {
          then: (done: (answer: ReadAnswer) => void) =>
            void answer.then(
              (given) => done(typeof given === 'number' ? into.length : given),
              () => done(zeros(into)),
            ),
        } as unknown as Promise<ReadAnswer>;
      } catch {
        return zeros(into);
      }
    };
    return new Resolver({
      ...options,
      source: { synchronous: source.synchronous, length: source.length, read },
    });
  },
});

/** What failed is not said. */
export const failsSilently = mutant({
  name: 'fails silently',
  breaks: 'source-failure-is-loud',
  kind: 'wrong-events',
  engine: (options) =>
    new Resolver({
      ...options,
      notify: (event: ResolverEvent) => event.kind === 'source-failed' || options.notify(event),
    }),
});

/** A handler that has failed goes on as if nothing had happened, and takes nothing more. */
export const deathUnseen = mutant({
  name: 'a handler that fails sits still',
  breaks: 'handler-death-is-seen',
  kind: 'stuck',
  port: ({ port }) => {
    let dead = false;
    return {
      take: (batch, wait, timeout_ms) => {
        if (dead) return 0;
        try {
          return port.take(batch, wait, timeout_ms);
        } catch {
          dead = true;
          return 0;
        }
      },
    };
  },
});

/** Nothing bounds what is under way. */
export const unboundedInFlight = mutant({
  name: 'fetches without bound',
  breaks: 'bounded-in-flight',
  kind: 'too-many-fetches',
  engine: (options) => new Resolver({ ...options, policy: { ...options.policy, maxInFlight: 1_000 } }),
});

/** Memory that was closed still answers. */
export const viewsLive = mutant({
  name: 'memory that was closed still gives bytes',
  breaks: 'views-die-safely',
  kind: 'closed-memory-read',
  attachment: ({ memory, close }) => {
    let closed = false;
    return {
      memory: {
        load: (address, into) => void (closed ? into.fill(0) : memory!.load(address, into)),
        store: (address, from) => memory!.store(address, from),
      },
      close: async () => {
        closed = true;
        await close();
      },
    };
  },
});
