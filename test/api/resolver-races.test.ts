import { describe, expect, it } from 'vitest';
import {
  DemandPagingError,
  OUTCOME,
  type PagerPolicy,
  type PageSource,
  type PlainError,
  type ResolutionBatch,
  VERB,
  VERBS,
} from '../../src/api/index.js';
import { answered, heldSource, PAGES, pattern, setUp } from './engine-world.js';
import { FakePort } from './fake-port.js';

/** The kernel refuses every copy, as with ENOMEM. */
class NoMemoryPort extends FakePort {
  override resolve(batch: ResolutionBatch): void {
    super.resolve(batch);
    for (let row = 0; row < batch.count; row++) {
      if (batch.verb[row] !== VERB.copy) continue;
      this.pages.fill(undefined, batch.page[row]!, batch.page[row]! + batch.span[row]!);
      batch.settle(row, OUTCOME.failed, 0, 12);
    }
  }
}

/** One page has no memory: whatever is to be done there meets ENOENT. */
class HolePort extends FakePort {
  constructor(public hole: number) {
    super(PAGES);
  }

  override resolve(batch: ResolutionBatch): void {
    super.resolve(batch);
    for (let row = 0; row < batch.count; row++) {
      if (batch.page[row] === this.hole && batch.verb[row] !== VERB.wake)
        batch.settle(row, OUTCOME.gone, 0, 2);
    }
  }
}

const one = (first: number) => [{ first, count: 1 }];
const four = [{ first: 0, count: 4 }];
const everywhere = new Array<number>(PAGES).fill(-1);

/** A removed page whose zeros are pending: the memory keeps changing. */
function zerosPending() {
  const engine = setUp();
  engine.port.event({ kind: 'remove', pages: { first: 2, count: 1 } });
  engine.port.fault(2);
  engine.port.againLeft = Infinity;
  engine.turn();
  engine.port.againLeft = 0;
  expect(engine.port.pages[2]).toBe(undefined);
  return engine;
}

describe('a copy that the kernel refuses', () => {
  it('by default: the pager stops, and every missing page is poisoned', () => {
    const { port, turn, events } = setUp({}, pattern, {}, new NoMemoryPort(PAGES));
    port.fault(5);
    turn(10);
    expect(events).toContainEqual(expect.objectContaining({ kind: 'stopped', waiters: 'poisoned' }));
    expect(port.pages).toEqual(everywhere);
  });

  it('onSourceFailure poison: the page is poisoned', () => {
    const { port, turn } = setUp(
      { onSourceFailure: 'poison', faultAroundPages: 1 },
      pattern,
      {},
      new NoMemoryPort(PAGES),
    );
    port.fault(5);
    turn(10);
    expect([port.pages[4], port.pages[5], port.pages[6]]).toEqual([undefined, -1, undefined]);
  });

  it('onSourceFailure fail: the waiting access fails', () => {
    const { port, turn } = setUp(
      { onSourceFailure: 'fail', faultAroundPages: 1 },
      pattern,
      {},
      new NoMemoryPort(PAGES),
    );
    port.fault(5);
    turn(10);
    expect(port.log).toContain('fail 5+1');
    expect(port.pages[5]).toBe(undefined);
  });
});

describe('rows that are pending while the states change', () => {
  it('a page that is being discarded gets no zeros', () => {
    const { port, execute, turn, states, events } = zerosPending();
    execute({ command: 'discard-begin', ranges: one(2), then: 'refetch' });
    turn();
    expect(port.pages[2]).toBe(undefined);
    port.event({ kind: 'remove', pages: { first: 2, count: 1 } }); // the control thread's madvise
    turn();
    execute({ command: 'discard-end', ranges: one(2) });
    expect(states.isPresent(2)).toBe(false);
    port.fault(2);
    turn();
    expect(events.map(({ kind }) => kind)).not.toContain('stopped');
    expect(port.pages[2]).toBe(3);
  });

  it('a page that is frozen gets no zeros until it is thawed', () => {
    const { port, execute, turn } = zerosPending();
    execute({ command: 'freeze', ranges: one(2) });
    turn(3);
    port.fault(2);
    turn(3);
    expect(port.pages[2]).toBe(undefined);
    execute({ command: 'thaw', ranges: one(2) });
    port.fault(2);
    turn();
    expect(port.pages[2]).toBe(0);
  });

  it('contents without protection for a page that is protected meanwhile: a wake, then contents with protection', () => {
    const { port, execute, turn } = setUp();
    port.fault(0);
    port.againLeft = Infinity;
    turn();
    port.againLeft = 0;
    execute({ command: 'write-protect', ranges: four });
    turn(3);
    expect(port.log).toEqual(['wake 0+4']);
    port.fault(0);
    turn();
    expect(port.log.slice(1)).toEqual(['copy 0+4 protected']);
  });

  it('a removed page that is write-protected: its zeros are protected', () => {
    const { port, execute, turn } = setUp();
    port.event({ kind: 'remove', pages: { first: 0, count: 1 } });
    turn();
    execute({ command: 'write-protect', ranges: four });
    port.fault(0);
    turn();
    expect(port.pages[0]).toBe(0);
    expect(port.log).toContain('copy 0+1 protected');
  });
});

describe('commands', () => {
  it('write-protect: answered when done, not while its row is pending', () => {
    const { port, execute, replies, turn } = setUp();
    port.fault(0);
    turn();
    port.againLeft = Infinity;
    execute({ command: 'write-protect', ranges: four });
    turn();
    expect(replies).toEqual([]);
    port.againLeft = 0;
    turn();
    expect(port.log.at(-1)).toBe('writeprotect 0+4 protected');
    expect(replies).toEqual([{ ok: true, value: undefined }]);
  });

  it('poison of a range: the missing pages, for good, and not the present ones', () => {
    const { port, execute, replies, turn } = setUp({ faultAroundPages: 16 });
    port.fault(0);
    turn();
    execute({ command: 'poison', ranges: [{ first: 0, count: 32 }] });
    expect(replies).toMatchObject([{ ok: true }]);
    port.fault(20);
    turn(2);
    expect([port.pages[15], port.pages[16], port.pages[20], port.pages[32]]).toEqual([16, -1, -1, undefined]);
  });

  it('mark-present of a poisoned page: refused', () => {
    const { execute, replies, states } = setUp();
    execute({ command: 'poison', ranges: four });
    execute({ command: 'mark-present', ranges: [{ first: 2, count: 4 }] });
    expect(replies).toMatchObject([{ ok: true }, { ok: false, error: { code: 'PAGE_POISONED' } }]);
    expect([states.stateOf(2), states.isPresent(2), states.stateOf(5)]).toEqual([
      'poisoned',
      false,
      'missing',
    ]);
  });

  it('two discards of the same pages: the second goes on when the first has ended', () => {
    const { port, execute, turn, states } = setUp();
    execute({ command: 'discard-begin', ranges: one(0), then: 'refetch' });
    execute({ command: 'discard-begin', ranges: one(0), then: 'refetch' });
    port.event({ kind: 'remove', pages: { first: 0, count: 1 } });
    turn();
    execute({ command: 'discard-end', ranges: one(0) });
    port.event({ kind: 'remove', pages: { first: 0, count: 1 } });
    port.fault(0);
    turn();
    expect(port.pages[0]).toBe(undefined);
    execute({ command: 'discard-end', ranges: one(0) });
    port.fault(0);
    turn();
    expect([states.stateOf(0), port.pages[0]]).toEqual(['present', 1]);
  });
});

describe('a removal that is read while rows wait for the memory to settle', () => {
  /** Pages 2 and 3 are removed by another thread as the first rows meet EAGAIN. */
  function removedMeanwhile(policy: Partial<PagerPolicy> = {}) {
    const engine = setUp({ batchRows: 1, ...policy });
    engine.port.againLeft = 1;
    engine.eventAtTake(policy.prefetchPages ? 3 : 2, () =>
      engine.port.event({ kind: 'remove', pages: { first: 2, count: 2 } }),
    );
    return engine;
  }

  it('takes its own pages out of a row of poison, and the others are poisoned', () => {
    const { port, states, execute, replies, turn } = removedMeanwhile();
    execute({ command: 'poison', ranges: [{ first: 0, count: 8 }] });
    turn(2);
    expect(replies).toMatchObject([{ ok: true }]);
    expect(port.pages.slice(0, 9)).toEqual([-1, -1, undefined, undefined, -1, -1, -1, -1, undefined]);
    expect([states.stateOf(2), states.stateOf(7)]).toEqual(['removed', 'poisoned']);
    expect(port.log).toContain('wake 2+2');
  });

  it('takes its own pages out of a row of contents, and the others are installed with theirs', () => {
    const { port, execute, replies, turn } = removedMeanwhile({ prefetchPages: 8 });
    execute({ command: 'prefetch', ranges: [{ first: 0, count: 8 }] });
    turn(3);
    expect(replies).toMatchObject([{ ok: true }]);
    expect(port.pages.slice(0, 9)).toEqual([1, 2, undefined, undefined, 5, 6, 7, 8, undefined]);
  });

  it('wakes a row whose first page it takes, and the rest of that row is installed', () => {
    const { port, execute, replies, turn } = removedMeanwhile({ prefetchPages: 8 });
    execute({ command: 'prefetch', ranges: [{ first: 2, count: 6 }] });
    turn(3);
    expect(replies).toMatchObject([{ ok: true }]);
    expect(port.pages.slice(0, 9)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      5,
      6,
      7,
      8,
      undefined,
    ]);
  });
});

describe('poison that waits for the memory to settle', () => {
  it.each(['freeze', 'write-protect'] as const)('comes all the same when its pages get a %s', (command) => {
    const { port, execute, states, turn } = setUp({ batchRows: 1 });
    port.againLeft = Infinity;
    execute({ command: 'poison', ranges: [{ first: 0, count: 4 }] });
    execute({ command, ranges: one(2) });
    port.againLeft = 0;
    turn(2);
    expect(port.pages.slice(0, 5)).toEqual([-1, -1, -1, -1, undefined]);
    expect(states.stateOf(2)).toBe('poisoned');
  });
});

describe('abort', () => {
  it('while the memory changes: goes on until every missing page is poisoned', () => {
    const { resolver, port } = setUp();
    port.againLeft = 20;
    resolver.abort(new Error('dead'));
    expect(port.pages).toEqual(everywhere);
    expect(port.log).toContain(`wake 0+${PAGES}`);
  });

  it('with protected and frozen pages: both are lifted, since no resolver is left to do it', () => {
    const { resolver, port, execute, turn } = setUp();
    port.fault(0);
    turn();
    execute({ command: 'write-protect', ranges: four });
    execute({ command: 'freeze', ranges: one(1) });
    port.log.length = 0;
    resolver.abort(new Error('dead'));
    expect(port.log).toContain('writeprotect 0+4');
    expect(port.log).toContain('rwprotect 0+4');
  });
});

describe('ensure', () => {
  it('of a page that a window was to bring, which fails: the page is looked at again', async () => {
    const { source, questions } = heldSource();
    const { port, turn, execute, replies } = setUp({}, source);
    port.fault(5); // window 4..7
    turn();
    execute({ command: 'ensure', ranges: one(6) });
    turn();
    questions.shift()!.fail();
    await answered();
    for (let round = 0; round < 20; round++) {
      turn();
      for (const question of questions.splice(0)) question.succeed();
      await answered();
    }
    expect(replies).toMatchObject([{ ok: true }]);
    expect([port.pages[5], port.pages[6]]).toEqual([6, 7]);
  });

  it('of an unmapped page: refused', () => {
    const { resolver, port, turn, execute, replies } = setUp({}, pattern, {}, new HolePort(9));
    port.event({ kind: 'unmap', pages: { first: 9, count: 1 } });
    turn();
    execute({ command: 'ensure', ranges: one(9) });
    turn(10);
    expect(replies).toMatchObject([{ ok: false, error: { code: 'MEMORY_GONE' } }]);
    expect(resolver.busy).toBe(false);
  });

  it('of a page found unmapped: refused, and reported once', () => {
    const { resolver, turn, execute, replies, events } = setUp({}, pattern, {}, new HolePort(9));
    execute({ command: 'ensure', ranges: one(9) });
    turn(10);
    expect(replies).toMatchObject([{ ok: false, error: { code: 'MEMORY_GONE' } }]);
    expect(events).toEqual([{ kind: 'unmapped', pages: { first: 9, count: 1 } }]);
    expect(resolver.busy).toBe(false);
  });

  it('with a removal inside a chunk: no page is lost', () => {
    const { resolver, port, turn, execute, replies, eventAtTake } = setUp({
      batchRows: 4,
      faultAroundPages: 1,
      prefetchPages: 1,
    });
    port.event({ kind: 'remove', pages: { first: 1, count: 11 } });
    turn();
    execute({ command: 'ensure', ranges: [{ first: 0, count: 12 }] });
    port.againLeft = 1;
    eventAtTake(2, () => port.event({ kind: 'remove', pages: { first: 0, count: 1 } }));
    turn(50);
    expect(replies).toMatchObject([{ ok: true }]);
    expect(port.pages.slice(0, 12)).toEqual(new Array(12).fill(0));
    expect(resolver.busy).toBe(false);
  });

  it("of a page whose source fails: rejects with the source's reason", () => {
    const { turn, execute, replies } = setUp(
      { retries: 0, onSourceFailure: 'fail', faultAroundPages: 1 },
      { ...pattern, read: () => 0 },
    );
    execute({ command: 'ensure', ranges: one(0) });
    turn(5);
    expect(replies).toMatchObject([{ ok: false }]);
    const { error } = replies[0] as { readonly error: PlainError };
    expect(DemandPagingError.fromPlain(structuredClone(error))).toMatchObject({
      code: 'PAGE_FAILED',
      cause: expect.objectContaining({ code: 'SOURCE_LENGTH' }) as unknown,
    });
  });
});

describe('fetches', () => {
  it('of a synchronous source: every read is announced, retries too', () => {
    const insideAtRead: boolean[] = [];
    let calls = 0;
    const source: PageSource = {
      ...pattern,
      read(offset, into) {
        insideAtRead.push(engine.reading.calls % 2 === 1);
        if (++calls === 1) throw new Error('EIO');
        return pattern.read(offset, into);
      },
    };
    const engine = setUp({ faultAroundPages: 1 }, source);
    engine.port.fault(1);
    for (; engine.clock.ms < 100; engine.clock.ms += 10) engine.turn();
    expect(engine.port.pages[1]).toBe(2);
    expect(insideAtRead).toEqual([true, true]);
  });

  it('a request that is cancelled while others time out: the others stay', async () => {
    const { source, questions } = heldSource();
    const { port, turn, clock, eventAtTake } = setUp(
      { faultAroundPages: 1, retries: 0, sourceTimeout_ms: 100, onSourceFailure: 'poison', batchRows: 4 },
      source,
    );
    for (let page = 0; page < 6; page++) port.fault(page);
    turn(2); // four rows a batch
    clock.ms = 50;
    port.fault(20); // asked later: not overdue with the others
    turn();
    expect(questions).toHaveLength(7);
    clock.ms = 100;
    port.againLeft = 1;
    eventAtTake(2, () => port.event({ kind: 'remove', pages: { first: 5, count: 1 } }));
    turn();
    questions[6]!.succeed();
    await answered();
    turn(5);
    expect(port.pages[20]).toBe(21);
  });
});

describe('waiting', () => {
  it('without residency: a removed page is brought again', () => {
    const { port, turn } = setUp({}, pattern, { residency: false });
    port.event({ kind: 'remove', pages: { first: 2, count: 1 } });
    port.fault(2);
    turn();
    expect(port.pages[2]).toBe(0);
    port.pages[2] = undefined; // the removing thread drops the page only now
    port.fault(2);
    turn();
    expect(port.pages[2]).toBe(0);
  });

  it('with a fault that was read: does not sleep, not even when stopped', () => {
    const { resolver, port, turn, events, eventAtTake } = setUp(
      { retries: 0, faultAroundPages: 1 },
      { ...pattern, read: () => 0 },
    );
    port.fault(1);
    turn();
    expect(events.map(({ kind }) => kind)).toContain('stopped');
    port.fault(3); // poisoned: its row meets EAGAIN; a removal, and a fault behind it, are read
    port.againLeft = 1;
    eventAtTake(2, () => {
      port.pages[7] = undefined;
      port.event({ kind: 'remove', pages: { first: 7, count: 1 } });
      port.fault(7);
    });
    resolver.turn('block');
    expect(port.pages[7]).toBe(undefined); // its accessor still waits
    port.waits = [];
    resolver.turn('block');
    expect(port.waits[0]).toBe('none 0');
  });
});

describe('a page that has no memory and is accessed all the same, past the mapping', () => {
  /** What such an access does: woken, it asks again. */
  const insist = (engine: ReturnType<typeof setUp>): void => {
    for (let round = 0; round < 20; round++) {
      engine.port.fault(9);
      engine.turn();
    }
  };

  it('with fail: the access fails, is reported, and others are served', () => {
    const engine = setUp({ faultAroundPages: 1 }, pattern, {}, new HolePort(9));
    insist(engine);
    expect(engine.port.log).toContain('fail 9+1');
    expect(engine.events).toContainEqual(
      expect.objectContaining({
        kind: 'source-failed',
        error: expect.objectContaining({ code: 'MEMORY_GONE' }) as unknown,
      }),
    );
    engine.port.fault(8);
    engine.turn();
    expect(engine.port.pages[8]).toBe(9);
    expect(engine.events.map(({ kind }) => kind)).not.toContain('stopped');
  });

  it('without fail: the pager stops, and reports that the access waits', () => {
    const verbs = VERBS.filter((verb) => verb !== 'fail');
    const engine = setUp({ faultAroundPages: 1 }, pattern, { verbs }, new HolePort(9));
    insist(engine);
    expect(engine.events).toContainEqual(expect.objectContaining({ kind: 'stopped', waiters: 'blocked' }));
    expect(engine.port.pages[8]).toBe(-1); // nobody reads anything there by and by
    const { length } = engine.port.log;
    insist(engine);
    expect(engine.port.log.length - length).toBeLessThan(20); // it does not go round and round
  });

  it('mapped again, and the program has said so: brought', () => {
    const port = new HolePort(9);
    const engine = setUp({ faultAroundPages: 1 }, pattern, {}, port);
    insist(engine);
    port.hole = -1;
    engine.execute({ command: 'discard-begin', ranges: one(9), then: 'refetch' });
    engine.execute({ command: 'discard-end', ranges: one(9) });
    port.fault(9);
    engine.turn();
    expect(port.pages[9]).toBe(10);
  });
});

describe('a page that is poisoned while it is being discarded', () => {
  /** Poison would go with the pages, so that it is put off. */
  function poisonedMeanwhile() {
    const engine = setUp();
    engine.execute({
      command: 'discard-begin',
      ranges: [{ first: 0, count: 4, announcements: 1 }],
      then: 'refetch',
    });
    engine.execute({ command: 'poison', ranges: one(2) });
    engine.turn();
    expect(engine.port.pages[2]).toBe(undefined);
    expect(engine.states.stateOf(2)).toBe('poisoned');
    engine.port.pages.fill(undefined, 0, 4);
    return engine;
  }

  it('the discard ends: poisoned', () => {
    const { port, execute, turn } = poisonedMeanwhile();
    execute({ command: 'discard-end', ranges: four });
    turn();
    expect(port.pages.slice(0, 4)).toEqual([undefined, undefined, -1, undefined]);
  });

  it('the resolver stops: poisoned, since nothing would serve its next fault', () => {
    const { resolver, port } = poisonedMeanwhile();
    resolver.abort(new DemandPagingError('HANDLER_DIED', 'it died'));
    expect(port.pages).toEqual(everywhere);
  });

  it.each(['poison', 'zero'] as const)('is poisoned at the end, missing: %s', (missing) => {
    const { port, execute } = poisonedMeanwhile();
    execute({ command: 'end', missing });
    expect(port.pages[2]).toBe(-1);
  });
});
