import {
  type Command,
  type CommandReply,
  Counters,
  DEFAULT_POLICY,
  fileOffset,
  gpa,
  type MemoryKind,
  MemoryLayout,
  type ResolverEvent,
  type PageSource,
  type PagerPolicy,
  PageStates,
  Resolver,
  type Supports,
  VERBS,
} from '../../src/api/index.js';
import { FakePort } from './fake-port.js';

export const PAGES = 64;
export const PAGE = 4096;

const SUPPORTS: Supports = {
  verbs: VERBS,
  faults: ['missing', 'minor', 'write-protect', 'rwp'],
  events: ['remove', 'unmap', 'remap', 'fork'],
  memory: ['anonymous'],
  threadIds: true,
  discard: true,
  freeze: 'full',
  directCopy: false,
  install: 'copy',
  fill: true,
  residency: true,
  changeRegions: true,
  stops: 'blocks',
};

function fill(offset: number, into: Uint8Array): number {
  for (let at = 0; at < into.length; at += PAGE) into.fill((offset + at) / PAGE + 1, at, at + PAGE);
  return into.length;
}

/** Page n is filled with n + 1. */
export const pattern: PageSource = { synchronous: true, length: PAGES * PAGE, read: fill };

/** A question put to {@link heldSource}, which the test answers. */
export interface Question {
  succeed(): void;
  fail(): void;
}

/** A source that answers when it is told to; questions appear in `questions`, oldest first. */
export function heldSource(): { readonly source: PageSource; readonly questions: Question[] } {
  const questions: Question[] = [];
  const source: PageSource = {
    ...pattern,
    synchronous: false,
    read: (offset, into) =>
      new Promise((resolve, reject) => {
        questions.push({
          succeed: () => resolve(fill(offset, into)),
          fail: () => reject(new Error('EIO')),
        });
      }),
  };
  return { source, questions };
}

/** Lets the promises of answers that were given settle: enough rounds of microtasks, no time. */
export async function answered(): Promise<void> {
  for (let round = 0; round < 5; round++) await Promise.resolve();
}

/** An engine over 64 pages of a port driven by hand. */
export function setUp(
  policy: Partial<PagerPolicy> = {},
  source: PageSource = pattern,
  supports: Partial<Supports> = {},
  port = new FakePort(PAGES),
  memory: MemoryKind = 'anonymous',
) {
  const layout = new MemoryLayout([
    {
      gpa: gpa(0),
      length: BigInt(PAGES * PAGE),
      sourceOffset: fileOffset(0),
      memory,
      pageSize: PAGE,
    },
  ]);
  const states = PageStates.create(PAGES);
  const counters = new Counters();
  const events: ResolverEvent[] = [];
  const clock = { ms: 0 };
  /** Calls of `reading`: odd while the source is being read. */
  const reading = { calls: 0 };
  const resolver = new Resolver({
    layout,
    states,
    pages: [{ first: 0, count: PAGES }],
    port,
    supports: { ...SUPPORTS, ...supports },
    source,
    policy: { ...DEFAULT_POLICY, faultAroundPages: 4, ...policy },
    counters,
    notify: (event) => events.push(event),
    now: () => clock.ms,
    reading: () => void reading.calls++,
  });
  const replies: CommandReply[] = [];
  const execute = (command: Command): void => resolver.execute(command, (reply) => replies.push(reply));
  /** Turns a number of times, the clock standing still. */
  const turn = (times = 1): void => {
    for (let i = 0; i < times; i++) resolver.turn('none');
  };
  /** Lets `port` report `event` when it is asked for the `nth` time from now: after an install has met it. */
  const eventAtTake = (nth: number, happen: () => void): void => {
    const take = port.take.bind(port);
    let takes = 0;
    port.take = (...asked) => {
      if (++takes === nth) happen();
      return take(...asked);
    };
  };
  return {
    resolver,
    port,
    states,
    counters,
    events,
    clock,
    reading,
    execute,
    replies,
    turn,
    eventAtTake,
  };
}
