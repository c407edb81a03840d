import { describe, expect, it } from 'vitest';
import { DEFAULT_POLICY, type PagerPolicy, type PageSource } from '../../src/api/index.js';
import { answered, heldSource, PAGE, pattern, setUp } from './engine-world.js';

/** A source that refuses at once until the clock says so; the times at which it was asked. */
function refusing(until_ms: number, clock: () => number): { source: PageSource; asked: number[] } {
  const asked: number[] = [];
  const read = (offset: number, into: Uint8Array): number => {
    asked.push(clock());
    if (clock() < until_ms) throw new Error('ECONNREFUSED');
    return pattern.read(offset, into) as number;
  };
  return { source: { ...pattern, read }, asked };
}

type Engine = ReturnType<typeof setUp>;

/** Turns until page 5 has come or is given up; the clock goes from one thing that is due to the next. */
function play({ resolver, port, clock, turn }: Engine): void {
  for (turn(); port.pages[5] === undefined; turn()) if (!resolver.busy) clock.ms = resolver.nextDue_ms;
}

/** An access to page 5 while the source refuses. */
function outage(until_ms: number, policy: Partial<PagerPolicy> = {}) {
  const at: { clock?: { ms: number } } = {};
  const { source, asked } = refusing(until_ms, () => at.clock?.ms ?? 0);
  const engine = setUp({ ...policy, faultAroundPages: 1 }, source);
  at.clock = engine.clock;
  engine.port.fault(5);
  play(engine);
  return { contents: engine.port.pages[5], asked, ms: engine.clock.ms };
}

describe('a source that refuses', () => {
  it('for 30 s, by default: the access survives, and the source is asked within a second of its return', () => {
    const { contents, ms } = outage(30_000);
    expect(contents).toBe(6);
    expect(ms).toBeGreaterThanOrEqual(30_000);
    expect(ms).toBeLessThanOrEqual(31_000);
  });

  it('for good, by default: given up after a minute, and the page is poisoned, never zeros', () => {
    const { contents, ms } = outage(Infinity);
    expect(contents).toBe(-1);
    expect(ms).toBeGreaterThan(30_000);
    expect(ms).toBeLessThanOrEqual(DEFAULT_POLICY.retryFor_ms + DEFAULT_POLICY.maxRetryDelay_ms);
  });

  it('several times: asked again after pauses that double up to a bound', () => {
    const { asked } = outage(Infinity, { retries: 6, retryDelay_ms: 10, maxRetryDelay_ms: 100 });
    expect(asked).toEqual([0, 10, 30, 70, 150, 250, 350]);
  });

  it('with bounds in the policy: given up after its retries or its time, whichever is first', () => {
    expect(outage(Infinity, { retries: 2 }).asked).toHaveLength(3);
    expect(outage(Infinity, { retryFor_ms: 30 }).asked).toHaveLength(3); // pauses of 10 and 20 ms
    expect(outage(Infinity, { retries: 0 }).asked).toHaveLength(1);
  });

  it('with answers of the wrong length: given up after three retries', () => {
    let asked = 0;
    const engine = setUp({ faultAroundPages: 1 }, { ...pattern, read: () => (asked++, PAGE - 1) });
    engine.port.fault(5);
    play(engine);
    expect(asked).toBe(4);
  });
});

describe('a process that is stopped while its source is asked', () => {
  const policy = {
    faultAroundPages: 1,
    sourceTimeout_ms: 1000,
    retryFor_ms: 3000,
    onSourceFailure: 'poison',
  } as const;

  it('once: the fetch goes on waiting, the pause is not the source’s time', async () => {
    const { source, questions } = heldSource();
    const { port, turn, clock, resolver } = setUp(policy, source);
    port.fault(1);
    turn();
    clock.ms = resolver.nextDue_ms;
    turn();
    clock.ms += 3_600_000;
    turn();
    questions[0]!.succeed();
    await answered();
    turn();
    expect([port.pages[1], questions.length]).toEqual([2, 1]);
  });

  it('again and again: the pauses never add up to a time-out', () => {
    const { source, questions } = heldSource();
    const { turn, clock, port } = setUp(policy, source);
    port.fault(1);
    turn();
    for (let pause = 0; pause < 7; pause++) {
      clock.ms += 60_000;
      turn();
    }
    expect(questions).toHaveLength(1); // 7 eighths of the time-out
  });

  it('between retries: the fetch is not given up', () => {
    const at: { clock?: { ms: number } } = {};
    const { source, asked } = refusing(3_600_500, () => at.clock?.ms ?? 0);
    const engine = setUp(policy, source);
    at.clock = engine.clock;
    engine.port.fault(5);
    engine.turn();
    engine.clock.ms = 3_600_000;
    play(engine);
    expect(engine.port.pages[5]).toBe(6);
    expect(asked.length).toBeGreaterThan(2);
  });
});
