import {
  type FaultBatch,
  type FaultPort,
  type MemoryEvent,
  OUTCOME,
  type ReadAnswer,
  Resolver,
  ROW,
} from 'demand-paging';
import { ALL_DONE, isInstall, rows, mutant } from './mutant.js';

/** Takes rows out of a batch. */
function without(batch: FaultBatch, from: number, unwanted: (row: number) => boolean): number {
  let kept = from;
  for (let row = from; row < batch.count; row++) {
    if (unwanted(row)) continue;
    for (const column of [
      batch.kind,
      batch.page,
      batch.span,
      batch.write,
      batch.site,
      batch.thread,
      batch.vcpu,
      batch.extra,
    ])
      column[kept] = column[row]!;
    kept++;
  }
  batch.count = kept;
  return kept - from;
}

/** Removal events are read, and dropped. */
export const droppedRemove = mutant({
  name: 'drops removal events',
  breaks: 'removed-reads-zero',
  kind: 'stale-contents',
  mayBreak: ['remove-before-fault', 'prefetch-never-resurrects', 'again-makes-progress'],
  port: ({ port }) => ({
    take: (batch, wait, timeout_ms) => {
      const before = batch.count;
      port.take(batch, wait, timeout_ms);
      return without(batch, before, (row) => batch.kind[row] === ROW.remove);
    },
  }),
});

/** A removal that is read behind a fault on its pages is taken for older than that. */
export const removeBehindFault = mutant({
  name: 'ignores a removal behind a fault on the same page',
  breaks: 'remove-before-fault',
  kind: 'wrong-end',
  port: ({ port }) => ({
    take: (batch, wait, timeout_ms) => {
      const before = batch.count;
      port.take(batch, wait, timeout_ms);
      const faulted = (row: number): boolean => {
        for (let other = before; other < row; other++) {
          if (
            !batch.isEvent(other) &&
            batch.page[other]! >= batch.page[row]! &&
            batch.page[other]! < batch.page[row]! + batch.span[row]!
          )
            return true;
        }
        return false;
      };
      return without(batch, before, (row) => batch.kind[row] === ROW.remove && faulted(row));
    },
  }),
});

/** A page that is not there, and counts as present, is found lost in the end: that stops the pager. */
const BY_A_LOST_PAGE = [
  'publish-before-present',
  'kernel-access-blocks',
  'no-lost-wake',
  'no-torn-page',
  'remove-before-fault',
] as const;

/** EAGAIN counts as success. */
export const againSwallowed = mutant({
  name: 'swallows EAGAIN',
  breaks: 'again-makes-progress',
  kind: 'wrong-end',
  mayBreak: BY_A_LOST_PAGE,
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (!isInstall(row)) return undefined;
      const result = inner.row(row.verb, row.page, row.span, row.from, row.flags);
      return result.outcome === OUTCOME.again ? ALL_DONE(row.span) : result;
    }),
  }),
});

/** The answer field, -11, read as an unsigned number of bytes: all of them. */
export const signedAgain = mutant({
  name: 'reads a signed EAGAIN as bytes',
  breaks: 'again-makes-progress',
  kind: 'page-absent',
  mayBreak: BY_A_LOST_PAGE,
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (!isInstall(row)) return undefined;
      const result = inner.row(row.verb, row.page, row.span, row.from, row.flags);
      return result.outcome === OUTCOME.again && result.done === 0 ? { ...result, done: row.span } : result;
    }),
  }),
});

/**
 * Lets the removal go on, and tells of it only once what was being fetched is installed: by then the
 * pages may be dropped already.
 */
export const resurrects = mutant({
  name: 'tells of a removal after what was being fetched',
  breaks: 'prefetch-never-resurrects',
  kind: 'stale-contents',
  // A page that an access waits for is brought back as well.
  mayBreak: ['remove-before-fault'],
  engine: (options) => {
    const { source, port } = options;
    let underWay = 0;
    let idleTakes = 0;
    let drops = 0;
    const held: MemoryEvent[] = [];
    const counted = {
      synchronous: source.synchronous,
      length: source.length,
      read: (offset: number, into: Uint8Array): ReadAnswer | Promise<ReadAnswer> => {
        const answer = source.read(offset, into);
        if (typeof answer === 'number' || !('then' in answer)) return answer;
        underWay++;
        const over = (): void => void underWay--;
        const then = (done: (answer: ReadAnswer) => void, failed: (error: unknown) => void): unknown =>
          answer.then(
            (given) => (over(), done(given)),
            (error: unknown) => (over(), failed(error)),
          );
        return { then } as unknown as Promise<ReadAnswer>;
      },
    };
    const take: FaultPort['take'] = (batch, wait, timeout_ms) => {
      const before = batch.count;
      port.take(batch, wait, timeout_ms);
      idleTakes = underWay > 0 ? 0 : idleTakes + 1;
      if (idleTakes < 2) {
        return without(batch, before, (row) => {
          if (batch.kind[row] !== ROW.remove || drops > 0 || (underWay === 0 && held.length === 0))
            return false;
          held.push(batch.event(row));
          return true;
        });
      }
      while (held.length > 0 && !batch.full) batch.pushEvent(held.shift()!);
      return batch.count - before;
    };
    const late: FaultPort = {
      staging: port.staging,
      take,
      ready: () => port.ready(),
      resolve: (batch) => port.resolve(batch),
      resident: (page) => port.resident(page),
      close: () => port.close(),
    };
    const resolver = new Resolver({ ...options, port: late, source: counted });
    // The pager's own removals it tells in time.
    const execute = resolver.execute.bind(resolver);
    resolver.execute = (command, reply) => {
      if (command.command === 'discard-begin') drops++;
      execute(command, reply);
      if (command.command === 'discard-end') drops--;
    };
    return resolver;
  },
});
