import { FLAG, OUTCOME, type ReadAnswer, Resolver, type ResolverOptions, VERB } from 'demand-paging';
import { type Engine } from 'demand-paging/conformance';
import {
  ALL_DONE,
  passThrough,
  isInstall,
  type Row,
  type RowOutcome,
  rowOf,
  rows,
  mutant,
} from './mutant.js';

const PAGE = 4096;

/** A page that is there already is overwritten, and with it what the guest wrote. */
export const doubleCopy = mutant({
  name: 'copies twice',
  breaks: 'install-once',
  kind: 'foreign-contents',
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (!isInstall(row)) return undefined;
      const result = inner.row(row.verb, row.page, row.span, row.from, row.flags);
      if (result.outcome === OUTCOME['already-present']) {
        inner.attachment.memory.store(
          inner.attachment.layout.gpaOf(row.page),
          inner.port.staging.subarray(row.from, row.from + PAGE),
        );
      }
      return result;
    }),
  }),
});

/** A page is visible with half of its bytes before the other half comes. */
export const tornPage = mutant({
  name: 'installs a page in two halves',
  breaks: 'no-torn-page',
  kind: 'torn-page',
  // Those that read whole pages while they come.
  mayBreak: ['freeze-is-reversible', 'kernel-access-blocks'],
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (!isInstall(row)) return undefined;
      const { staging } = inner.port;
      const bytes = staging.slice(row.from, row.from + row.span * PAGE);
      for (let page = 0; page < row.span; page++)
        staging.fill(0xdd, row.from + page * PAGE + PAGE / 2, row.from + (page + 1) * PAGE);
      const result = inner.row(row.verb, row.page, row.span, row.from, row.flags);
      staging.set(bytes, row.from);
      for (let page = 0; page < result.done; page++) {
        inner.kernel.preempt(false);
        if (!inner.port.resident(row.page + page)) continue;
        const half = bytes.subarray(page * PAGE + PAGE / 2, (page + 1) * PAGE);
        const frame = inner.kernel.memory.mappedFrame(row.page + page);
        frame?.set(half, PAGE / 2);
      }
      return result;
    }),
  }),
});

/** Some faults are answered with zeros, without asking the source. */
export const zeroLeak = mutant({
  name: 'answers the faults of some pages with zeros',
  breaks: 'no-zero-leak',
  kind: 'zeros-read',
  // Properties that compare contents, and have that many pages, see it, too.
  mayBreak: [
    'publish-before-present',
    'again-makes-progress',
    'source-failure-is-loud',
    'handler-death-is-seen',
  ],
  port: ({ port, row }) => ({
    take: (batch, wait, timeout_ms) => {
      const before = batch.count;
      const taken = port.take(batch, wait, timeout_ms);
      for (let at = before; at < before + taken; at++)
        if (!batch.isEvent(at) && batch.page[at] === 5) row(VERB.zeropage, batch.page[at]!, 1);
      return taken;
    },
  }),
});

/** Says that a page is there, and installs it later. */
export const presentTooEarly = mutant({
  name: 'says installed before it installs',
  breaks: 'publish-before-present',
  kind: 'page-absent',
  // What is said to be there is looked at, at once; what comes late, in spite of a removal, keeps its waiters.
  mayBreak: ['again-makes-progress', 'no-lost-wake'],
  port: (inner) => {
    let later: { readonly row: Row; readonly bytes: Uint8Array }[] = [];
    const install = ({ row, bytes }: (typeof later)[number]): boolean => {
      const kept = inner.port.staging.slice(row.from, row.from + bytes.length);
      inner.port.staging.set(bytes, row.from);
      const { outcome } = inner.row(row.verb, row.page, row.span, row.from, row.flags);
      inner.port.staging.set(kept, row.from);
      return outcome === OUTCOME.again;
    };
    const catchUp = (): void => void (later = later.filter(install));
    return {
      take: (batch, wait, timeout_ms) => {
        catchUp();
        return inner.port.take(batch, wait, timeout_ms);
      },
      resolve: (batch) => {
        catchUp();
        rows(inner, (row): RowOutcome | undefined => {
          if (!isInstall(row) || row.span > 1 || row.page !== 7 || inner.port.resident(7)) return undefined;
          later.push({ row, bytes: inner.port.staging.slice(row.from, row.from + row.span * PAGE) });
          return ALL_DONE(row.span);
        })(batch);
      },
    };
  },
});

/** Protects a page after it installed it, and an access writes in between. */
export const protectsLate = mutant({
  name: 'write protection comes after the page',
  breaks: 'write-protect-is-atomic',
  kind: 'event-lost',
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (!isInstall(row) || !(row.flags & FLAG.protect)) return undefined;
      const result = inner.row(row.verb, row.page, row.span, row.from, row.flags & ~FLAG.protect);
      inner.kernel.preempt(false);
      if (result.done > 0) inner.row(VERB.writeprotect, row.page, result.done, 0, FLAG.protect);
      return result;
    }),
  }),
});

/** Freezing loses the contents. */
export const freezeDrops = mutant({
  name: 'freezing drops the pages',
  breaks: 'freeze-is-reversible',
  kind: 'wrong-end',
  // What is dropped unheard is held to be present: an access that waits there when the pager closes reads zeros.
  mayBreak: ['no-zero-leak'],
  port: (inner) => ({
    resolve: rows(inner, (row) => {
      if (row.verb !== VERB.rwprotect || !(row.flags & FLAG.protect)) return undefined;
      for (let page = row.page; page < row.page + row.span; page++) inner.kernel.memory.drop(page, 'punch');
      return ALL_DONE(row.span);
    }),
  }),
});

/** Poisons by letting those fail who wait now. */
export const poisonForgotten = mutant({
  name: 'poison is forgotten',
  breaks: 'poison-is-sticky',
  kind: 'stuck',
  // No resolver answers later faults once it is gone, and closed memory reads as zeros.
  mayBreak: ['handler-death-is-seen', 'no-zero-leak'],
  port: (inner) => ({
    resolve: rows(inner, (row) =>
      row.verb === VERB.poison ? inner.row(VERB.fail, row.page, row.span) : undefined,
    ),
  }),
});

/** Discards the contents of a page, and leaves what the page table says of it. */
export const poisonOutlastsPage = mutant({
  name: 'poison is left where a page is dropped',
  breaks: 'poison-is-sticky',
  kind: 'wrong-end',
  discardEverywhere: (kernel) => (pages) => kernel.discard(pages, 'remove'),
});

/** Reads what lies nearest to what was asked. */
export const clampsInput = mutant({
  name: 'clamps what is malformed',
  breaks: 'bad-input-refused',
  kind: 'malformed-but-done',
  port: (inner) => ({
    resolve: (batch) => {
      for (let at = 0; at < batch.count; at++) {
        const row = rowOf(batch, at);
        const from = Math.min(Math.max(0, row.from), inner.port.staging.length - row.span * PAGE);
        const { outcome, done, errno } = passThrough(inner, row.verb === VERB.copy ? { ...row, from } : row);
        batch.settle(at, outcome, done, errno);
      }
    },
  }),
});

/** What a source answers, made into something else. */
const answering = (wrong: (answer: ReadAnswer, into: Uint8Array) => ReadAnswer) => {
  return (options: ResolverOptions): Engine => {
    const { source } = options;
    const read = (offset: number, into: Uint8Array): ReadAnswer | Promise<ReadAnswer> => {
      const answer = source.read(offset, into);
      if (typeof answer === 'number' || !('then' in answer)) return wrong(answer, into);
      const then = (done: (answer: ReadAnswer) => void, failed: (error: unknown) => void): unknown =>
        answer.then((given) => done(wrong(given, into)), failed);
      return { then } as unknown as Promise<ReadAnswer>;
    };
    return new Resolver({
      ...options,
      source: { synchronous: source.synchronous, length: source.length, read },
    });
  };
};

/** What the source says of one page is taken for all that were asked for with it. */
export const zerosSpread = mutant({
  name: 'zeros where the source has data',
  breaks: 'no-zero-leak',
  kind: 'zeros-read',
  engine: answering((answer) =>
    typeof answer === 'number'
      ? answer
      : { length: answer.length, zeros: [{ start: 0, length: answer.length }] },
  ),
});

/** What the source need not have written is installed. */
export const zerosUnheard = mutant({
  name: 'installs what the source says are zeros',
  breaks: 'no-zero-leak',
  kind: 'foreign-contents',
  engine: answering((answer, into) => (typeof answer === 'number' ? answer : into.length)),
});
