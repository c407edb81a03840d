import { FLAG, OUTCOME, Resolver, VERB, WRITE } from 'demand-paging';
import { blocking, watchedSites } from 'demand-paging/backends/memory';
import { ALL_DONE, isInstall, mutant, passThrough, rowOf, rows } from './mutant.js';

/** Faults say the page behind their own. */
const faultsOfTheNextPage = mutant({
  name: 'faults say the next page',
  breaks: 'coverage-is-true',
  kind: 'wrong-address',
  port: ({ port, attachment }) => ({
    take(batch, wait, timeout_ms) {
      const before = batch.count;
      const taken = port.take(batch, wait, timeout_ms);
      for (let row = before; row < batch.count; row++)
        if (!batch.isEvent(row)) batch.page[row] = (batch.page[row]! + 1) % attachment.layout.pageCount;
      return taken;
    },
  }),
});

/** Refuses what it does not declare, and does it all the same. */
const refusesAndDoes = mutant({
  name: 'refuses a verb, and carries it out',
  breaks: 'unsupported-changes-nothing',
  kind: 'not-declared-but-changed',
  attachment: ({ supports }) => ({
    supports: { ...supports, verbs: supports.verbs.filter((verb) => verb !== 'zeropage') },
  }),
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (row.verb !== VERB.zeropage) return undefined;
      passThrough(inner, row);
      return { outcome: OUTCOME.refused, done: 0, errno: 0 };
    }),
  }),
});

/** Refuses to discard, with an error of its own. */
const discardsOtherwise = mutant({
  name: 'refuses to discard with another error',
  breaks: 'unsupported-changes-nothing',
  kind: 'not-declared-but-discarded',
  attachment: ({ supports }) => ({
    supports: { ...supports, discard: false },
    discard() {
      throw new Error('not today');
    },
  }),
});

/** Carries out what is nearest to a malformed row, and says that it failed. */
const clampsAndFails = mutant({
  name: 'clamps what is malformed, and says that it failed',
  breaks: 'bad-input-refused',
  kind: 'malformed-but-changed',
  port: (inner) => ({
    resolve(batch) {
      for (let at = 0; at < batch.count; at++) {
        const row = rowOf(batch, at);
        const from = Math.min(Math.max(0, row.from), inner.port.staging.length - 4096);
        const { outcome, done, errno } = passThrough(inner, { ...row, from });
        if (from === row.from) batch.settle(at, outcome, done, errno);
        else batch.settle(at, OUTCOME.failed, 0, 22);
      }
    },
  }),
});

/** A malformed row ends the caller. */
const throwsForMalformed = mutant({
  name: 'throws for what is malformed',
  breaks: 'bad-input-refused',
  kind: 'thrown',
  port: (inner) => ({
    resolve(batch) {
      for (let at = 0; at < batch.count; at++) {
        const row = rowOf(batch, at);
        if (row.span < 1 || row.page < 0) throw new Error('a malformed row');
        const { outcome, done, errno } = passThrough(inner, row);
        batch.settle(at, outcome, done, errno);
      }
    },
  }),
});

/** Says that it has installed a page that was there. */
const existsIsSuccess = mutant({
  name: 'EEXIST counts as installed',
  breaks: 'install-once',
  kind: 'wrong-outcome',
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      const result = passThrough(inner, row);
      return result.outcome === OUTCOME['already-present'] ? ALL_DONE(row.span) : result;
    }),
  }),
});

/** Freezing is refused, though it is declared. */
const refusesToFreeze = mutant({
  name: 'refuses to freeze',
  breaks: 'freeze-is-reversible',
  kind: 'operation-failed',
  engine: (options) => {
    const resolver = new Resolver(options);
    const execute = resolver.execute.bind(resolver);
    resolver.execute = (command, reply) => {
      if (command.command !== 'freeze') return execute(command, reply);
      reply({ ok: false, error: { code: 'NOT_SUPPORTED', message: 'not today' } });
    };
    return resolver;
  },
});

/** Present pages are not frozen, and it says that they are. */
const freezesNothing = mutant({
  name: 'freezing does nothing',
  breaks: 'freeze-is-reversible',
  kind: 'not-stopped',
  port: (inner) => ({
    resolve: rows(inner, (row) =>
      row.verb === VERB.rwprotect && row.flags & FLAG.protect ? ALL_DONE(row.span) : undefined,
    ),
  }),
});

/** A resolver that fails says so, and goes on. */
const goesOnAfterFailure = mutant({
  name: 'says that it has stopped, and goes on',
  breaks: 'handler-death-is-seen',
  kind: 'operation-granted',
  engine: (options) => {
    const resolver = new Resolver(options);
    const turn = resolver.turn.bind(resolver);
    resolver.turn = (wait) => {
      try {
        return turn(wait);
      } catch (error) {
        const plain = { code: 'HANDLER_DIED', message: String(error) } as const;
        options.notify({ kind: 'stopped', error: plain, waiters: 'poisoned' });
        return true;
      }
    };
    return resolver;
  },
});

/** A page that was poisoned goes on delivering faults. */
const faultsOfPoison = mutant({
  name: 'delivers faults of poisoned pages',
  breaks: 'poison-is-sticky',
  kind: 'fault-for-poison',
  port: (inner) => {
    let poisoned: number | undefined;
    return {
      take(batch, wait, timeout_ms) {
        const taken = inner.port.take(batch, wait, timeout_ms);
        if (poisoned === undefined || batch.full) return taken;
        batch.pushFault(0, poisoned, WRITE.no);
        return taken + 1;
      },
      resolve: rows(inner, (row) => {
        if (row.verb === VERB.poison) poisoned = row.page;
        return isInstall(row) ? passThrough(inner, row) : undefined;
      }),
    };
  },
});

/** Neither stops an access nor lets it go. */
const stopsNothing = mutant({
  name: 'neither stops an access nor lets it go',
  breaks: 'coverage-is-true',
  kind: 'no-end',
  model: { sites: watchedSites(() => ({ ...blocking(), stop() {} })) },
});

/** Mutants for kinds of failure: each is checked on the property that it breaks, and on no other. */
export const KIND_MUTANTS = [
  faultsOfTheNextPage,
  refusesAndDoes,
  discardsOtherwise,
  clampsAndFails,
  throwsForMalformed,
  existsIsSuccess,
  refusesToFreeze,
  freezesNothing,
  goesOnAfterFailure,
  faultsOfPoison,
  stopsNothing,
];
