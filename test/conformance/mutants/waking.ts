import { DemandPagingError, FLAG, OUTCOME, VERB } from 'demand-paging';
import { ALL_DONE, passThrough, isInstall, type Row, rowOf, rows, mutant } from './mutant.js';

/** Wakes the accesses that wait for the first page of a row, and forgets its neighbours. */
export const lostWake = mutant({
  name: 'wakes only the first page of a row',
  breaks: 'no-lost-wake',
  kind: 'stuck',
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (!isInstall(row) || row.span === 1) return undefined;
      const result = inner.row(row.verb, row.page, row.span, row.from, row.flags | FLAG.noWake);
      if (result.done > 0) inner.row(VERB.wake, row.page, 1);
      return result;
    }),
  }),
});

/** The kernel's own EEXIST: it wakes no waiter. */
export const existsWakesNoWaiter = mutant({
  name: 'EEXIST without a wake-up',
  breaks: 'duplicate-wakes',
  kind: 'stuck',
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (row.verb !== VERB.copy || !inner.port.resident(row.page)) return undefined;
      return { outcome: OUTCOME['already-present'], done: 0, errno: 17 };
    }),
  }),
});

/** The end poisons what is missing, and wakes no waiter; and nothing is released. */
export const closeLeavesWaiters = mutant({
  name: 'close leaves waiters',
  breaks: 'close-is-definite',
  kind: 'stuck',
  port: (inner) => {
    const { pageCount } = inner.attachment.layout;
    return {
      resolve: (batch) => {
        const all = Array.from({ length: batch.count }, (_, at) => rowOf(batch, at));
        const isWakeOfAll = (row: Row): boolean => row.verb === VERB.wake && row.span === pageCount;
        const isEnd = all.some(isWakeOfAll) && all.some(({ verb }) => verb === VERB.poison);
        rows(inner, (row) => {
          if (!isEnd) return undefined;
          if (row.verb === VERB.poison) return passThrough(inner, { ...row, flags: row.flags | FLAG.noWake });
          return isWakeOfAll(row) ? ALL_DONE(row.span) : undefined;
        })(batch);
      },
    };
  },
  attachment: ({ memory }) => {
    let closed = false;
    return {
      memory: {
        load: (address, into) => {
          if (closed) throw new DemandPagingError('CLOSED', 'the memory was closed');
          memory!.load(address, into);
        },
        store: (address, from) => memory!.store(address, from),
      },
      close: async () => void (closed = true),
    };
  },
});

/** A thread that ends while it waits is taken for the end of the process. */
export const deathIsTheEnd = mutant({
  name: 'a killed accessor ends the pager',
  breaks: 'exit-while-blocked-terminates',
  kind: 'stuck',
  port: (inner) => {
    let dead = false;
    const forget = inner.kernel.forget.bind(inner.kernel);
    inner.kernel.forget = (access) => {
      dead ||= access.state === 'blocked';
      forget(access);
    };
    return {
      resolve: rows(inner, (row) =>
        dead && isInstall(row) ? { outcome: OUTCOME.gone, done: 0, errno: 3 } : undefined,
      ),
    };
  },
});
