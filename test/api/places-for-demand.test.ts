import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { type PageSource } from '../../src/api/index.js';
import { answered, PAGE, PAGES, pattern, setUp } from './engine-world.js';

interface Asked {
  readonly first: number;
  readonly bytes: number;
  answer(): void;
}

/** An asynchronous source whose questions wait in `asked`, oldest first. */
function waitingSource(): { source: PageSource; asked: Asked[] } {
  const asked: Asked[] = [];
  const source: PageSource = {
    ...pattern,
    synchronous: false,
    read: (offset, into) =>
      new Promise((resolve) => {
        const question: Asked = {
          first: offset / PAGE,
          bytes: into.length,
          answer: () => {
            asked.splice(asked.indexOf(question), 1);
            resolve(pattern.read(offset, into) as number);
          },
        };
        asked.push(question);
      }),
  };
  return { source, asked };
}

type Step =
  | { readonly do: 'fault'; readonly page: number }
  | { readonly do: 'prefetch' | 'ensure'; readonly first: number; readonly count: number }
  | { readonly do: 'answer'; readonly which: number };

const page = fc.nat(PAGES - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant('fault' as const), page }),
  fc.record({
    do: fc.constantFrom('prefetch' as const, 'ensure' as const),
    first: page,
    count: fc.integer({ min: 1, max: PAGES }),
  }),
  fc.record({ do: fc.constant('answer' as const), which: fc.nat(20) }),
);

const setting = fc.record({
  maxInFlight: fc.integer({ min: 2, max: 12 }),
  prefetchPages: fc.integer({ min: 1, max: PAGES }),
  maxAhead_bytes: fc.integer({ min: 1, max: 40 }).map((pages) => pages * PAGE - (pages % 3)),
});

/**
 * What an access has to wait behind is bounded in bytes, whatever the program has asked for, and it finds a
 * place: it is asked of the source in the very turn in which its fault is taken.
 */
test('fetches ahead of accesses: places for accesses are left', async () => {
  await fc.assert(
    fc.asyncProperty(setting, fc.array(step, { minLength: 1, maxLength: 40 }), async (policy, steps) => {
      const { source, asked } = waitingSource();
      const { resolver, port, states, execute } = setUp({ faultAroundPages: 1, ...policy }, source);
      const wholePages = Math.max(PAGE, Math.ceil(policy.maxAhead_bytes / PAGE) * PAGE);
      const prefetches = steps.every(({ do: what }) => what !== 'ensure');
      const faulted = new Set<number>();
      for (const each of steps) {
        if (each.do === 'fault') {
          if (states.isPresent(each.page)) continue; // nobody faults there
          port.fault(each.page);
          faulted.add(each.page);
        } else if (each.do === 'answer') {
          asked[each.which % Math.max(1, asked.length)]?.answer();
          await answered();
        } else {
          const count = Math.min(each.count, PAGES - each.first);
          execute({ command: each.do, ranges: [{ first: each.first, count }] });
        }
        const before = asked.length;
        for (let turn = 0; turn < 4; turn++) resolver.turn('none');
        const ahead = asked.filter(({ first, bytes }) => bytes > PAGE || !faulted.has(first));
        const bytes = ahead.reduce((sum, question) => sum + question.bytes, 0);
        expect(bytes).toBeLessThanOrEqual(prefetches ? wholePages : 2 * wholePages);
        expect(ahead.length).toBeLessThanOrEqual(Math.max(1, Math.floor((policy.maxInFlight * 3) / 4)));
        if (each.do === 'fault' && before < policy.maxInFlight)
          expect(asked.some((a) => a.first <= each.page && each.page < a.first + a.bytes / PAGE)).toBe(true);
      }
    }),
    { numRuns: 500 },
  );
});

test('an asynchronous source, before an access: not asked for the whole image', () => {
  const { source, asked } = waitingSource();
  const { port, execute, turn } = setUp(
    { faultAroundPages: 1, prefetchPages: 4, maxAhead_bytes: 8 * PAGE },
    source,
  );
  execute({ command: 'prefetch', ranges: [{ first: 0, count: PAGES }] });
  turn(20);
  expect(asked.map(({ first, bytes }) => [first, bytes / PAGE])).toEqual([
    [0, 4],
    [4, 4],
  ]);
  port.fault(PAGES - 1);
  turn();
  expect(asked.map(({ first }) => first)).toEqual([0, 4, PAGES - 1]);
});

test('with the least bytes ahead: a request ends, page by page', async () => {
  const { source, asked } = waitingSource();
  const { execute, turn, replies } = setUp({ maxAhead_bytes: 1, prefetchPages: 16 }, source);
  execute({ command: 'ensure', ranges: [{ first: 0, count: 3 }] });
  for (let pages = 0; pages < 3; pages++) {
    turn();
    expect(asked.map(({ bytes }) => bytes)).toEqual([PAGE]);
    asked[0]!.answer();
    await answered();
  }
  turn();
  expect(replies).toEqual([expect.objectContaining({ ok: true })]);
});
