import { describe, expect, test } from 'vitest';
import {
  completePolicy,
  Counters,
  type ResolverEvent,
  type PagerPolicy,
  PageStates,
  type PageSource,
  Resolver,
} from 'demand-paging';
import { ModelWorld, PAGE } from '../model/model-world.js';

const PAGES = 4;

/** Page n is filled with n + 1; the pages in `broken` cannot be read. */
const sourceOf = (broken: ReadonlySet<number> = new Set()): PageSource => ({
  synchronous: true,
  length: PAGES * PAGE,
  read(offset, into) {
    for (let at = 0; at < into.length; at += PAGE) {
      const page = (offset + at) / PAGE;
      if (broken.has(page)) throw new Error(`page ${page} cannot be read`);
      into.fill(page + 1, at, at + PAGE);
    }
    return into.length;
  },
});

async function engineOn(policy: Partial<PagerPolicy> = {}, source = sourceOf()) {
  const world = await ModelWorld.attach(PAGES);
  const { layout, supports } = world.attachment;
  const events: ResolverEvent[] = [];
  const resolver = new Resolver({
    layout,
    supports,
    states: PageStates.create(PAGES),
    pages: [{ first: 0, count: PAGES }],
    port: world.port,
    source,
    policy: completePolicy(policy),
    counters: new Counters(),
    notify: (event) => events.push(event),
  });
  return { world, resolver, events };
}

const ok = (): void => {};

/** Found by the conformance suite; each was a fault of the engine's. */
describe('the engine on the kernel model', () => {
  test('a window that fails: the demanded access is not woken before its failure is reported', async () => {
    const { world, resolver } = await engineOn(
      { faultAroundPages: 4, retries: 0, onSourceFailure: 'fail' },
      sourceOf(new Set([0])),
    );
    const access = world.read(0);
    for (let turn = 0; turn < 20 && !access.ended; turn++) {
      resolver.turn('none');
      world.run(access);
    }
    expect([access.state, access.errno]).toEqual(['errored', 14]);
  });

  test('two discards of the same pages: the second goes on when the first has ended', async () => {
    const { world, resolver, events } = await engineOn({ faultAroundPages: 1 });
    const pages = [{ first: 0, count: 1 }];
    resolver.execute({ command: 'discard-begin', ranges: pages, then: 'refetch' }, ok);
    resolver.execute({ command: 'discard-begin', ranges: pages, then: 'refetch' }, ok);
    resolver.execute({ command: 'discard-end', ranges: pages }, ok);
    const drop = world.kernel.discard(pages[0]!);
    drop.step();
    resolver.turn('none'); // reads the event: it is the second discard's own
    world.run(drop);
    resolver.execute({ command: 'discard-end', ranges: pages }, ok);
    expect(events.map(({ kind }) => kind)).not.toContain('removed');
    const access = world.read(0);
    resolver.turn('none');
    world.run(access);
    expect([access.state, access.bytes[0]]).toEqual(['done', 1]);
  });

  test('two discards that overlap: each is announced by its own event', async () => {
    const { world, resolver, events } = await engineOn({ faultAroundPages: 1 });
    const wide = { first: 0, count: 2 };
    const narrow = { first: 0, count: 1 };
    for (const pages of [wide, narrow]) {
      resolver.execute({ command: 'discard-begin', ranges: [pages], then: 'refetch' }, ok);
    }
    const [wideDrop, narrowDrop] = [world.kernel.discard(wide), world.kernel.discard(narrow)];
    narrowDrop.step();
    resolver.turn('none');
    world.run(narrowDrop);
    resolver.execute({ command: 'discard-end', ranges: [narrow] }, ok);
    wideDrop.step();
    resolver.turn('none');
    world.run(wideDrop);
    resolver.execute({ command: 'discard-end', ranges: [wide] }, ok);
    expect(events.map(({ kind }) => kind)).not.toContain('removed');
  });

  test('another thread removes pages that are being discarded: they are removed', async () => {
    const { world, resolver, events } = await engineOn({ faultAroundPages: 1 });
    const own = { first: 1, count: 1 };
    resolver.execute({ command: 'discard-begin', ranges: [own], then: 'refetch' }, ok);
    const drop = world.kernel.discard(own);
    drop.step();
    const removal = world.kernel.discard({ first: 0, count: 3 });
    removal.step();
    resolver.turn('none');
    world.run(drop);
    resolver.execute({ command: 'discard-end', ranges: [own] }, ok);
    const access = world.read(1);
    resolver.turn('none');
    world.run(removal); // takes what was installed meanwhile
    world.run(access);
    resolver.turn('none');
    world.run(access);
    expect([access.state, access.bytes[0]]).toEqual(['done', 0]);
    expect(events.map(({ kind }) => kind)).not.toContain('stopped');
  });

  test('a page found lost: the pager stops with every missing page poisoned', async () => {
    const { world, resolver, events } = await engineOn({ faultAroundPages: 1 });
    const first = world.read(2);
    resolver.turn('none');
    world.run(first);
    world.kernel.memory.drop(2, 'punch'); // behind the pager's back
    const waiting = [world.read(2), world.read(0)];
    for (let turn = 0; turn < 4; turn++) resolver.turn('none');
    waiting.forEach((access) => world.run(access));
    expect(events.map(({ kind }) => kind)).toContain('stopped');
    const late = [0, 1, 3].map((page) => world.read(page));
    for (let turn = 0; turn < 4; turn++) resolver.turn('none');
    late.forEach((access) => world.run(access));
    expect([waiting[0]!, ...late.slice(1)].map(({ state }) => state)).toEqual([
      'errored',
      'errored',
      'errored',
    ]);
  });

  test('a request that reaches over an unmapped page: answered', async () => {
    const { world, resolver } = await engineOn({ prefetchPages: 4 });
    const unmap = world.kernel.unmap({ first: 1, count: 1 });
    world.run(unmap);
    resolver.turn('none');
    world.run(unmap);
    let reply: unknown;
    resolver.execute({ command: 'ensure', ranges: [{ first: 0, count: 2 }] }, (given) => (reply = given));
    for (let turn = 0; turn < 4; turn++) resolver.turn('none');
    expect(reply).toMatchObject({ ok: false, error: { code: 'MEMORY_GONE' } });
  });
});
