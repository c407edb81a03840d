import { describe, expect, test } from 'vitest';
import { gpa, hva, openPager, type OutsideAnswer, type Pager } from '../../../src/api/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { ERRNO, makePipe, raw } from '../../../src/linux/index.js';
import { Actor } from '../userfaultfd/actor.js';
import { PAGE, region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { ForeignProcess } from './foreign-process.js';
import { growingMemory } from './growing-memory.js';
import { contents, openGuest, pages, PAGES } from './guest.js';

skipWithoutUserfaultfd();

const FAILED = 200 + ERRNO.EFAULT;

/** Ways in which memory comes to be watched that the layout does not name: where it is then. */
const OUTSIDE: readonly (readonly [string, (f: ForeignProcess) => Promise<number>])[] = [
  ['memory registered later', (f) => f.ask('n')],
  ['memory grown by mremap', (f) => f.ask('e')],
  ['what MREMAP_DONTUNMAP has left', async (f) => (await f.ask('k')) + 3 * PAGE],
  ['a stack that grows', async (f) => (await f.ask('s')) - PAGE],
];

/** The first that the pager says of an access outside. */
const heard = (pager: Pager): Promise<{ address: number; answer: OutsideAnswer }> =>
  new Promise((resolve) =>
    pager.once('outside-fault', ({ address }, answer) => resolve({ address, answer })),
  );

describe.each(OUTSIDE)('an access of another process to %s', (_, place) => {
  test('fails by default, and the layout is served on', async (context) => {
    await using f = await ForeignProcess.start(context);
    const event = heard(f.pager);
    const address = await place(f);
    expect(await f.read(address)).toBe(FAILED);
    expect(await f.ask('l 5')).toBe(contents(5));
    expect(await event).toEqual({ address, answer: 'refused' });
    expect(f.pager.stopped).toBe(undefined);
    expect(f.pager.statistics()).toMatchObject({ outsideFaults: 1, poisonedPages: 0 });
  });

  test('finds zeros where the policy says so', async (context) => {
    await using f = await ForeignProcess.start(context, { onOutsideFault: 'zeros' });
    const event = heard(f.pager);
    const address = await place(f);
    expect(await f.read(address)).toBe(0);
    expect(await f.ask('l 5')).toBe(contents(5));
    expect(await event).toEqual({ address, answer: 'zeros' });
  });

  test('stops the pager where the policy says so, and waits no more', async (context) => {
    await using f = await ForeignProcess.start(context, { onOutsideFault: 'stop' });
    const stopped = new Promise((resolve) =>
      f.pager.once('stopped', (error, waiters) => resolve([error, waiters])),
    );
    const address = await place(f);
    expect(await f.read(address)).toBe(FAILED);
    expect(await stopped).toMatchObject([{ code: 'BAD_RANGE' }, 'poisoned']);
    expect(await f.read(address + (address < f.address ? -PAGE : PAGE))).toBe(FAILED); // one that comes later
  });
});

test('the layout follows memory of another process that is moved in whole and in part', async (context) => {
  await using f = await ForeignProcess.start(context);
  const remapped = new Promise<number>((resolve) => f.pager.once('remapped', (_, to) => resolve(to)));
  const old = await f.ask('k');
  const to = await remapped;
  expect(f.pager.layout.hvaOf(3)).toBe(hva(to + 3 * PAGE));
  expect(await f.ask('l 3')).toBe(contents(3));
  const unmapped = new Promise((resolve) => f.pager.once('unmapped', resolve));
  await f.ask('u 4');
  expect(await unmapped).toEqual({ first: 4, count: 1 });
  expect(() => f.pager.layout.hvaOf(4)).toThrow(expect.objectContaining({ code: 'MEMORY_GONE' }) as Error);
  expect(f.pager.layout.hvaOf(5)).toBe(hva(to + 5 * PAGE));
  expect(old).toBe(f.address);
});

test("the VMM's own memory that grows is not the pager's: the access fails, and the rest is served", async () => {
  using memory = growingMemory(PAGES);
  const { address } = memory;
  const pager = await openPager({
    backend: userfaultfd(),
    regions: [region(PAGES, 'anonymous', { hva: hva(address) })],
    source: {
      module: new URL('./fixtures/source.mjs', import.meta.url).href,
      export: 'open',
      options: { length: PAGES * PAGE },
    },
  });
  const event = heard(pager);
  await using actor = await Actor.start();
  const [reader, writer] = makePipe();
  expect(await actor.call('write', writer, address - PAGE, 1)).toBe(-ERRNO.EFAULT);
  for (const end of [reader, writer]) raw.close(end);
  expect(pager.memory!.readBlocking(gpa(PAGE), 1)).toEqual(Uint8Array.of(contents(1)));
  await pager.ensure(pages(0, PAGES));
  expect(await event).toEqual({ address: address - PAGE, answer: 'refused' });
  await pager.close();
});

test("an access that waits at the old place of the VMM's own memory is let go when the memory moves", async () => {
  const pager = await openGuest({ policy: { onOutsideFault: 'zeros' } });
  await using mover = await Actor.start();
  await using toucher = await Actor.start();
  const at = Number(pager.layout.hvaOf(0));
  const frozen = pages(7, 1);
  await pager.freeze(frozen); // an access there waits, and nothing brings it
  const waiting = toucher.load(at + 7 * PAGE);
  await new Promise<void>((resolve) => {
    const look = (): void => (pager.statistics().heldFaults > 0 ? resolve() : void setImmediate(look));
    look();
  });
  expect(await mover.call('mremap', at, PAGES * PAGE, PAGES * PAGE, 1 | 4, 0)).not.toBe(at);
  expect(await waiting).toBe(0); // in what DONTUNMAP has left
  await pager.thaw(frozen);
  await pager.close();
  await mover.call('munmap', at, PAGES * PAGE);
});
