import { describe, expect, it } from 'vitest';
import { type PageSource } from '../../src/api/index.js';
import { answered, heldSource, PAGES, pattern, setUp } from './engine-world.js';
import { FakePort } from './fake-port.js';

describe('Resolver', () => {
  it('a fault: its aligned window is installed, and late faults are woken', () => {
    const { resolver, port, states, counters } = setUp();
    port.fault(6);
    resolver.turn('none');
    port.fault(5);
    resolver.turn('none');
    expect(port.log).toEqual(['copy 4+4', 'wake 5+1']);
    expect(port.pages.slice(3, 9)).toEqual([undefined, 5, 6, 7, 8, undefined]);
    expect(states.countPresent({ first: 0, count: PAGES })).toBe(4);
    expect([
      counters.get('demandPages'),
      counters.get('aroundPages'),
      counters.get('spuriousFaults'),
    ]).toEqual([1, 3, 1]);
  });

  it("a fault read ahead of its page's removal: zeros", () => {
    const { resolver, port } = setUp();
    port.fault(2);
    port.event({ kind: 'remove', pages: { first: 2, count: 1 } });
    resolver.turn('none');
    expect(port.pages[2]).toBe(0);
  });

  it('a copy that meets EAGAIN: the removal is read, and the old contents are not installed', () => {
    const { resolver, port } = setUp();
    port.fault(2);
    port.againLeft = 1;
    const take = port.take.bind(port);
    let takes = 0;
    port.take = (...args) => {
      // The removal can be read only after the copy has failed.
      if (++takes === 2) port.event({ kind: 'remove', pages: { first: 2, count: 1 } });
      return take(...args);
    };
    resolver.turn('none');
    expect(port.pages[2]).toBe(undefined);
    port.fault(2); // woken, the accessor asks again
    resolver.turn('none');
    expect(port.pages.slice(0, 4)).toEqual([1, 2, 0, 4]);
  });

  it('a page that another thread installed: the rest of the row is installed', () => {
    const { resolver, port, states, counters } = setUp();
    port.pages[1] = 77;
    port.fault(0);
    resolver.turn('none');
    expect(port.pages.slice(0, 4)).toEqual([1, 77, 3, 4]);
    expect(states.countPresent({ first: 0, count: 4 })).toBe(4);
    expect(counters.get('racedPages')).toBe(1);
  });

  it('ensure: answered when all pages are present; prefetch: with its counts', () => {
    const { resolver, port, execute, replies } = setUp({ prefetchPages: 8 });
    execute({ command: 'ensure', ranges: [{ first: 0, count: 12 }] });
    for (let i = 0; i < 4; i++) resolver.turn('none');
    expect(replies.at(-1)).toMatchObject({ ok: true });
    execute({ command: 'prefetch', ranges: [{ first: 0, count: PAGES }] });
    while (replies.length < 2) resolver.turn('none');
    expect(replies[1]).toEqual({ ok: true, value: { installedPages: PAGES - 12, skippedPages: 12 } });
    expect(port.pages.every((content, page) => content === page + 1)).toBe(true);
  });

  it('prefetch over a removed page: its contents do not come back', () => {
    const { resolver, port, execute, replies } = setUp();
    port.event({ kind: 'remove', pages: { first: 8, count: 2 } });
    resolver.turn('none');
    execute({ command: 'prefetch', ranges: [{ first: 0, count: PAGES }] });
    while (replies.length < 1) resolver.turn('none');
    expect(port.pages[8]).toBe(undefined);
    expect(replies[0]).toEqual({ ok: true, value: { installedPages: PAGES - 2, skippedPages: 2 } });
  });

  it('a removal cancels the fetch of a chunk: the rest of the chunk is prefetched', async () => {
    const { source, questions } = heldSource();
    const { resolver, port, execute, replies, turn } = setUp({ prefetchPages: 4 }, source);
    execute({ command: 'prefetch', ranges: [{ first: 4, count: 4 }] });
    turn();
    port.event({ kind: 'remove', pages: { first: 3, count: 2 } });
    turn(2);
    for (const each of questions) each.succeed();
    await answered();
    turn();
    expect(port.pages.slice(3, 9)).toEqual([undefined, undefined, 6, 7, 8, undefined]);
    expect(replies).toEqual([{ ok: true, value: { installedPages: 3, skippedPages: 1 } }]);
    expect(resolver.busy).toBe(false);
  });

  it('poison of a page that is being discarded: carried out, and answered, when the discard has ended', () => {
    const { port, execute, states, replies } = setUp();
    execute({ command: 'discard-begin', ranges: [{ first: 1, count: 2 }], then: 'refetch' });
    execute({ command: 'poison', ranges: [{ first: 0, count: 2 }] });
    expect(replies).toHaveLength(1); // until it has gone, accesses can find the page as it was
    expect([port.log, states.stateOf(1)]).toEqual([['poison 0+1'], 'poisoned']);
    execute({ command: 'discard-begin', ranges: [{ first: 0, count: 1 }], then: 'refetch' });
    execute({ command: 'discard-end', ranges: [{ first: 1, count: 2 }] });
    expect(replies).toMatchObject([{ ok: true }, { ok: true }, { ok: true }, { ok: true }]); // the later drop does not count
    expect(port.log).toEqual(['poison 0+1', 'poison 1+1', 'wake 1+2']);
  });

  it.each(['freeze', 'write-protect'] as const)(
    '%s of a page that is being discarded: answered when the discard has ended',
    (command) => {
      const { execute, replies } = setUp();
      execute({ command: 'discard-begin', ranges: [{ first: 1, count: 2 }], then: 'zero' });
      execute({ command, ranges: [{ first: 0, count: 2 }] });
      expect(replies).toHaveLength(1);
      execute({ command: 'discard-end', ranges: [{ first: 1, count: 2 }] });
      expect(replies).toMatchObject([{ ok: true }, { ok: true }, { ok: true }]);
    },
  );

  it('a page whose poison meets EAGAIN: gets no zeros', () => {
    const { resolver, port, execute, states, replies, turn } = setUp();
    port.event({ kind: 'remove', pages: { first: 2, count: 1 } });
    turn();
    port.againLeft = 12;
    execute({ command: 'poison', ranges: [{ first: 2, count: 1 }] });
    expect(replies).toEqual([]);
    port.fault(2);
    turn(3);
    expect([port.pages[2], states.stateOf(2), states.isPresent(2)]).toEqual([-1, 'poisoned', false]);
    expect(replies).toMatchObject([{ ok: true }]);
    expect(resolver.busy).toBe(false);
  });

  it('faults while pages are discarded: held, and fetched again after', () => {
    const { resolver, port, execute, states } = setUp();
    port.fault(0);
    resolver.turn('none');
    execute({ command: 'discard-begin', ranges: [{ first: 0, count: 1 }], then: 'refetch' });
    port.pages[0] = undefined;
    port.event({ kind: 'remove', pages: { first: 0, count: 1 } });
    port.fault(0);
    resolver.turn('none');
    expect([states.stateOf(0), port.pages[0]]).toEqual(['missing', undefined]);
    execute({ command: 'discard-end', ranges: [{ first: 0, count: 1 }] });
    expect(port.log.at(-1)).toBe('wake 0+1');
    port.fault(0);
    resolver.turn('none');
    expect(port.pages[0]).toBe(1);
  });

  it('a source that fails: the waiting page is retried by itself, then the pager stops with every missing page poisoned', () => {
    const broken: PageSource = { ...pattern, read: () => 17 };
    const { resolver, port, events, clock, execute, replies } = setUp(
      { retries: 1, retryDelay_ms: 10 },
      broken,
    );
    port.fault(5);
    execute({ command: 'ensure', ranges: [{ first: 9, count: 1 }] });
    for (; clock.ms < 200; clock.ms += 10) resolver.turn('none');
    expect(events.filter(({ kind }) => kind === 'retrying')).toContainEqual(
      expect.objectContaining({ pages: { first: 5, count: 1 } }),
    );
    expect(events.at(-1)).not.toMatchObject({ kind: 'complete' });
    expect(events).toContainEqual(
      expect.objectContaining({
        kind: 'stopped',
        waiters: 'poisoned',
        error: expect.objectContaining({ code: 'SOURCE_LENGTH' }) as unknown,
      }),
    );
    expect(port.pages.every((content) => content === -1)).toBe(true);
    expect(replies).toMatchObject([{ ok: false }]);
  });

  it('onSourceFailure poison: only the failed page is poisoned, and gets no zeros', () => {
    const source: PageSource = {
      ...pattern,
      read: (offset, into) =>
        offset <= 5 * 4096 && offset + into.length > 5 * 4096 ? 0 : pattern.read(offset, into),
    };
    const { resolver, port, clock } = setUp({ onSourceFailure: 'poison', retries: 0 }, source);
    port.fault(5);
    port.fault(7);
    for (; clock.ms < 50; clock.ms += 10) resolver.turn('none');
    expect(port.pages.slice(4, 8)).toEqual([undefined, -1, undefined, 8]);
  });

  it('a present page discarded past the pager: PAGE_VANISHED', () => {
    const { resolver, port, events } = setUp({ onSourceFailure: 'poison' });
    port.fault(3);
    resolver.turn('none');
    port.pages[3] = undefined;
    port.fault(3);
    resolver.turn('none');
    expect(port.pages[3]).toBe(-1);
    expect(events).toContainEqual(
      expect.objectContaining({
        kind: 'source-failed',
        error: expect.objectContaining({ code: 'PAGE_VANISHED' }) as unknown,
      }),
    );
  });

  it('a late fault for a present page of a file: taken for swapped out, until it comes again', () => {
    const { resolver, port, events, counters } = setUp(
      { onSourceFailure: 'poison' },
      pattern,
      {},
      new FakePort(PAGES),
      'shmem',
    );
    port.fault(3);
    resolver.turn('none');
    port.pages[3] = undefined; // swapped out: an access would bring it back, and ask nobody
    port.fault(3);
    resolver.turn('none');
    expect(port.pages[3]).toBeUndefined();
    expect(events).not.toContainEqual(expect.objectContaining({ kind: 'source-failed' }));
    port.fault(3);
    resolver.turn('none');
    expect(port.pages[3]).toBe(-1);
    expect(counters.get('vanishedPages')).toBe(1);
  });

  it('more faults than may be in flight: bounded, and served as answers come', async () => {
    const answers: (() => void)[] = [];
    let inFlight = 0;
    let most = 0;
    const source: PageSource = {
      ...pattern,
      synchronous: false,
      read: (offset, into) => {
        most = Math.max(most, ++inFlight);
        return new Promise((resolve) =>
          answers.push(() => (inFlight--, resolve(pattern.read(offset, into)))),
        );
      },
    };
    const { resolver, port, counters } = setUp({ maxInFlight: 3, faultAroundPages: 1 }, source);
    for (let page = 0; page < 20; page++) port.fault(page);
    resolver.turn('none');
    while (answers.length > 0) {
      answers.pop()!();
      await Promise.resolve();
      await Promise.resolve();
      resolver.turn('none');
    }
    expect(most).toBe(3);
    expect(counters.get('maxInFlight')).toBe(3);
    expect(port.pages.slice(0, 20)).toEqual(Array.from({ length: 20 }, (_, page) => page + 1));
  });

  it('a page write-protected before it comes: installed protected', () => {
    const { resolver, port, execute } = setUp({ faultAroundPages: 4 });
    execute({ command: 'write-protect', ranges: [{ first: 1, count: 2 }] });
    port.fault(0);
    resolver.turn('none');
    expect(port.log).toEqual(['copy 0+1', 'copy 1+2 protected', 'copy 3+1']);
  });

  it('a source that never answers: times out, and a late answer is ignored', async () => {
    let answer: (count: number) => void = () => {};
    const source: PageSource = {
      ...pattern,
      synchronous: false,
      read: () => new Promise((resolve) => (answer = resolve)),
    };
    const { resolver, port, clock, events } = setUp(
      { retries: 0, sourceTimeout_ms: 100, faultAroundPages: 1, onSourceFailure: 'poison' },
      source,
    );
    port.fault(1);
    resolver.turn('none');
    while (clock.ms < 100) {
      clock.ms = resolver.nextDue_ms; // a look at the clock
      resolver.turn('none');
    }
    answer(4096);
    await Promise.resolve();
    resolver.turn('none');
    expect(port.pages[1]).toBe(-1);
    expect(events).toContainEqual(
      expect.objectContaining({ error: expect.objectContaining({ code: 'SOURCE_TIMEOUT' }) as unknown }),
    );
  });

  it('end: no access waits, and every missing page is poisoned', () => {
    const { resolver, port, execute } = setUp();
    port.fault(0);
    resolver.turn('none');
    execute({ command: 'end', missing: 'poison' });
    expect(resolver.ended).toBe(true);
    expect(port.closed).toBe(true);
    expect(port.pages.slice(0, 6)).toEqual([1, 2, 3, 4, -1, -1]);
    expect(port.log.at(-1)).toBe(`wake 0+${PAGES}`);
  });
});
