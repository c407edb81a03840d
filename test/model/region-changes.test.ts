import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type CommandReply,
  completePolicy,
  Counters,
  fileOffset,
  gpa,
  type PageSource,
  PageStates,
  type Region,
  type RegionSpec,
  Resolver,
} from '../../src/api/index.js';
import { type ModelAccess } from '../../src/backends/memory/index.js';
import { ModelWorld, PAGE } from './model-world.js';

const FIRST = 6; // pages there from the beginning
const REGION = 5;
const ROUNDS = 6; // regions that may be added
const RUNS = process.env['DEMAND_PAGING_LONG'] ? 20_000 : 1500;

/** Page n of the numbering is filled with n + 1, whichever region it lies in. */
const SOURCE_BYTES = (FIRST + ROUNDS * REGION) * PAGE;

const regionAfter = (page: number): RegionSpec => ({
  gpa: gpa(0x1_0000_0000 + page * PAGE),
  length: BigInt(REGION * PAGE),
  sourceOffset: fileOffset(page * PAGE),
  memory: 'anonymous',
  pageSize: PAGE,
});

/** A source whose answers come when the schedule says so. */
function heldSource(): { readonly source: PageSource; answer(which: number): void; readonly held: number } {
  const questions: (() => void)[] = [];
  return {
    source: {
      synchronous: false,
      length: SOURCE_BYTES,
      read: (offset, into) =>
        new Promise((resolve) =>
          questions.push(() => {
            for (let at = 0; at < into.length; at += PAGE) into.fill((offset + at) / PAGE + 1, at, at + PAGE);
            resolve(into.length);
          }),
        ),
    },
    answer: (which) => questions.splice(which % questions.length, 1)[0]?.(),
    get held() {
      return questions.length;
    },
  };
}

const settled = async (): Promise<void> => {
  for (let round = 0; round < 5; round++) await Promise.resolve();
};

/** Regions come and go while accesses, fetches, drops and prefetches are under way, every step chosen by `choices`. */
async function play(choices: readonly number[], missing: 'poison' | 'zero' | 'leave'): Promise<void> {
  const world = await ModelWorld.attach(FIRST);
  const { attachment, kernel } = world;
  const { layout, supports } = attachment;
  const states = PageStates.create(FIRST);
  const held = heldSource();
  const resolver = new Resolver({
    layout,
    supports,
    states,
    pages: [{ first: 0, count: FIRST }],
    port: world.port,
    source: held.source,
    policy: completePolicy({ faultAroundPages: 4, retries: 0 }),
    counters: new Counters(),
    // Nothing that is on its way to a region may reach it once it is removed: the kernel would say that it has gone.
    notify: ({ kind }) => expect(['stopped', 'unmapped']).not.toContain(kind),
    now: () => 0,
  });
  const accesses: { access: ModelAccess; page: number }[] = [];
  const live = new Set<Region>();
  const removed = new Set<number>();
  const waiting: Promise<CommandReply>[] = [];
  const command = (given: Parameters<Resolver['execute']>[0]): void =>
    void waiting.push(new Promise((resolve) => resolver.execute(given, resolve)));

  const step = async (choice: number): Promise<void> => {
    const which = choice >>> 4;
    switch (choice & 15) {
      case 0: {
        if (layout.pageCount >= FIRST + ROUNDS * REGION) return;
        const planned = layout.plan([regionAfter(layout.pageCount)]);
        states.grow(layout.pageCount + REGION);
        const { regions, token } = attachment.addRegions(planned);
        layout.add(regions);
        command({
          command: 'add-regions',
          regions,
          token,
          states: { present: new Uint8Array(Math.ceil(REGION / 8)) },
        });
        live.add(layout.regionOf(planned[0]!.firstPage));
        return;
      }
      case 1: {
        const region = [...live][which % Math.max(1, live.size)];
        if (!region) return;
        live.delete(region);
        const pages = { first: region.firstPage, count: REGION };
        for (let page = pages.first; page < pages.first + REGION; page++) removed.add(page);
        layout.remove([region]);
        command({ command: 'remove-regions', ranges: [pages], missing });
        attachment.removeRegions([region]);
        return;
      }
      case 2:
      case 3:
      case 4: {
        const page = which % layout.pageCount;
        if (removed.has(page)) return;
        accesses.push({ access: world.read(page), page });
        return;
      }
      case 5: {
        const ranges = [...live].map(({ firstPage }) => ({ first: firstPage, count: REGION }));
        return command({
          command: which % 2 ? 'prefetch' : 'ensure',
          ranges: [...ranges, { first: 0, count: FIRST }],
        });
      }
      case 6: {
        const page = which % FIRST;
        return command({ command: which % 2 ? 'freeze' : 'thaw', ranges: [{ first: page, count: 1 }] });
      }
      case 7:
      case 8:
        if (held.held > 0) held.answer(which);
        return settled();
      case 9:
      case 10:
      case 11:
        return void resolver.turn('none');
      default: {
        const runnable = accesses.filter(({ access }) => access.runnable);
        if (runnable.length > 0) runnable[which % runnable.length]!.access.step();
      }
    }
  };
  for (const choice of choices) await step(choice);

  // Then everything that can go on does.
  command({ command: 'thaw', ranges: [{ first: 0, count: FIRST }] });
  for (let round = 0; round < 200; round++) {
    resolver.turn('none');
    while (held.held > 0) held.answer(0);
    await settled();
    for (const { access } of accesses) while (access.runnable) access.step();
  }
  for (const { access, page } of accesses) {
    expect([access.actor, access.state], 'no access waits').not.toContain('blocked');
    const zeros = removed.has(page) && missing !== 'poison';
    if (access.state === 'done') expect(zeros ? [0, page + 1] : [page + 1]).toContain(access.bytes[0]);
    else expect([access.state, removed.has(page)]).toEqual(['errored', true]);
  }
  const replies = await Promise.all(waiting); // every command has an answer
  for (const reply of replies)
    if (!reply.ok) expect(['MEMORY_GONE', 'NOT_SUPPORTED']).toContain(reply.error.code);
  expect(kernel.queue.waiting).toBe(0);
  await attachment.close();
}

test('regions that come and go under accesses: each gets its own bytes, or learns that the region has gone', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(0xffff), { minLength: 20, maxLength: 120 }),
      fc.constantFrom('poison', 'zero', 'leave'),
      play,
    ),
    { numRuns: RUNS },
  );
}, 120_000);
