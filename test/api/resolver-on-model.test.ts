import { describe, expect, test } from 'vitest';
import {
  completePolicy,
  Counters,
  type Notice,
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
  const notices: Notice[] = [];
  const resolver = new Resolver({
    layout,
    supports,
    states: PageStates.create(PAGES),
    pages: [{ first: 0, count: PAGES }],
    port: world.port,
    source,
    policy: completePolicy(policy),
    counters: new Counters(),
    notify: (notice) => notices.push(notice),
  });
  return { world, resolver, notices };
}

const ok = (): void => {};

/** Found by the conformance suite; each was a fault of the engine's. */
describe('the engine on the kernel model', () => {
  test('a window that fails does not wake the very access whose failure it is to tell', async () => {
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

  test('of two withdrawals of the same pages the second goes on when the first is over', async () => {
    const { world, resolver, notices } = await engineOn({ faultAroundPages: 1 });
    const pages = [{ first: 0, count: 1 }];
    resolver.execute({ command: 'drop-begin', ranges: pages, then: 'missing' }, ok);
    resolver.execute({ command: 'drop-begin', ranges: pages, then: 'missing' }, ok);
    resolver.execute({ command: 'drop-end', ranges: pages }, ok);
    const drop = world.kernel.discard(pages[0]!);
    drop.step();
    resolver.turn('none'); // reads the event: it is the second withdrawal's own
    world.run(drop);
    resolver.execute({ command: 'drop-end', ranges: pages }, ok);
    expect(notices.map(({ kind }) => kind)).not.toContain('removed');
    const access = world.read(0);
    resolver.turn('none');
    world.run(access);
    expect([access.state, access.bytes[0]]).toEqual(['done', 1]);
  });

  test('of two withdrawals that overlap each is announced by its own event', async () => {
    const { world, resolver, notices } = await engineOn({ faultAroundPages: 1 });
    const wide = { first: 0, count: 2 };
    const narrow = { first: 0, count: 1 };
    for (const pages of [wide, narrow]) {
      resolver.execute({ command: 'drop-begin', ranges: [pages], then: 'missing' }, ok);
    }
    const [wideDrop, narrowDrop] = [world.kernel.discard(wide), world.kernel.discard(narrow)];
    narrowDrop.step();
    resolver.turn('none');
    world.run(narrowDrop);
    resolver.execute({ command: 'drop-end', ranges: [narrow] }, ok);
    wideDrop.step();
    resolver.turn('none');
    world.run(wideDrop);
    resolver.execute({ command: 'drop-end', ranges: [wide] }, ok);
    expect(notices.map(({ kind }) => kind)).not.toContain('removed');
  });

  test('a removal by somebody else, while the same pages are withdrawn, is a removal', async () => {
    const { world, resolver, notices } = await engineOn({ faultAroundPages: 1 });
    const own = { first: 1, count: 1 };
    resolver.execute({ command: 'drop-begin', ranges: [own], then: 'missing' }, ok);
    const drop = world.kernel.discard(own);
    drop.step();
    const removal = world.kernel.discard({ first: 0, count: 3 });
    removal.step();
    resolver.turn('none');
    world.run(drop);
    resolver.execute({ command: 'drop-end', ranges: [own] }, ok);
    const access = world.read(1);
    resolver.turn('none');
    world.run(removal); // takes what was installed meanwhile
    world.run(access);
    resolver.turn('none');
    world.run(access);
    expect([access.state, access.bytes[0]]).toEqual(['done', 0]);
    expect(notices.map(({ kind }) => kind)).not.toContain('stopped');
  });

  test('a page found lost stops the pager with every missing page poisoned', async () => {
    const { world, resolver, notices } = await engineOn({ faultAroundPages: 1 });
    const first = world.read(2);
    resolver.turn('none');
    world.run(first);
    world.kernel.memory.drop(2, 'punch'); // behind the pager's back
    const waiting = [world.read(2), world.read(0)];
    for (let turn = 0; turn < 4; turn++) resolver.turn('none');
    waiting.forEach((access) => world.run(access));
    expect(notices.map(({ kind }) => kind)).toContain('stopped');
    const late = [0, 1, 3].map((page) => world.read(page));
    for (let turn = 0; turn < 4; turn++) resolver.turn('none');
    late.forEach((access) => world.run(access));
    expect([waiting[0]!, ...late.slice(1)].map(({ state }) => state)).toEqual([
      'errored',
      'errored',
      'errored',
    ]);
  });

  test('a request that reaches over an unmapped page is answered', async () => {
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
