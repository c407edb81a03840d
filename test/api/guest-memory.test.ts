import { describe, expect, it } from 'vitest';
import {
  fileOffset,
  type Gpa,
  gpa,
  GuestMemory,
  MemoryLayout,
  type PageRange,
  PageStates,
} from '../../src/api/index.js';

const PAGE = 4096;
const PAGES = 8;
const BASE = 0x10_0000;

const page = (first: number, count = 1): PageRange => ({ first, count });
const at = (index: number, offset = 0): Gpa => gpa(BASE + index * PAGE + offset);

/** Guest memory over an array, whose pages come present when they are ensured, unless told otherwise. */
function setUp(
  options: { mustNotBlock?: string; ensure?: (ranges: readonly PageRange[]) => Promise<void> } = {},
) {
  const layout = new MemoryLayout([
    {
      gpa: gpa(BASE),
      length: BigInt(PAGES * PAGE),
      sourceOffset: fileOffset(0),
      memory: 'anonymous',
      pageSize: PAGE,
    },
  ]);
  const states = PageStates.create(PAGES);
  const bytes = Uint8Array.from({ length: PAGES * PAGE }, (_, i) => (i >>> 12) + 1);
  const ensured: PageRange[] = [];
  const hinted: PageRange[] = [];
  const memory = new GuestMemory({
    layout,
    states,
    raw: {
      load: (address, into) =>
        into.set(bytes.subarray(Number(address) - BASE, Number(address) - BASE + into.length)),
      store: (address, from) => bytes.set(from, Number(address) - BASE),
    },
    ensure:
      options.ensure ??
      (async (ranges) => {
        ensured.push(...ranges);
        for (const range of ranges) states.setPresent(range, true);
      }),
    hint: (ranges) => hinted.push(...ranges),
    mustNotBlock: () => options.mustNotBlock,
  });
  return { memory, states, bytes, ensured, hinted };
}

const refusal = (code: string): Error => expect.objectContaining({ code }) as Error;

describe('reading and writing at once', () => {
  it('of present pages: the bytes, as a copy', () => {
    const { memory, states, bytes } = setUp();
    states.setPresent(page(1, 2), true);
    const got = memory.readSync(at(1, PAGE - 1), 2);
    expect([...got]).toEqual([2, 3]);
    got.fill(99);
    expect([bytes[2 * PAGE - 1], bytes[2 * PAGE]]).toEqual([2, 3]);
    memory.writeSync(at(2), Uint8Array.of(55));
    expect(bytes[2 * PAGE]).toBe(55);
  });

  it.each<[string, string, (states: PageStates) => void]>([
    ['missing', 'PAGE_MISSING', () => {}],
    ['removed', 'PAGE_MISSING', (states) => states.set('removed', page(3), true)],
    ['poisoned', 'PAGE_POISONED', (states) => states.set('poisoned', page(3), true)],
    ['unmapped', 'MEMORY_GONE', (states) => states.set('unmapped', page(3), true)],
    [
      'frozen',
      'PAGE_FROZEN',
      (states) => {
        states.setPresent(page(3), true);
        states.set('frozen', page(3), true);
      },
    ],
  ])('of a page that is %s: refused, and nothing is written', (_, code, spoil) => {
    const { memory, states, bytes } = setUp();
    states.setPresent(page(2), true);
    spoil(states);
    expect(() => memory.readSync(at(2), 2 * PAGE)).toThrow(refusal(code));
    expect(() => memory.writeSync(at(2), new Uint8Array(2 * PAGE))).toThrow(refusal(code));
    expect(bytes[2 * PAGE]).toBe(3);
    expect([...memory.readSync(at(2), 1)]).toEqual([3]);
  });

  it('of a range with one missing page: the error names that page', () => {
    const { memory, states } = setUp();
    states.setPresent(page(0, 5), true);
    expect(() => memory.readSync(at(3), 3 * PAGE)).toThrow(
      expect.objectContaining({ range: { start: BigInt(at(5)), length: BigInt(PAGE) } }) as Error,
    );
  });
});

describe('reading and writing when the pages have come', () => {
  it('of missing and present pages: the missing ones are brought, and no other', async () => {
    const { memory, states, ensured } = setUp();
    states.setPresent(page(1), true);
    expect([...(await memory.read(at(1), 1))]).toEqual([2]);
    expect(ensured).toEqual([]);
    expect([...(await memory.read(at(2, PAGE - 1), 2))]).toEqual([3, 4]);
    expect(ensured).toEqual([page(2, 2)]);
  });

  it('a write to a part of a missing page: comes after its contents', async () => {
    const { memory, bytes, states } = setUp();
    await memory.write(at(4, 10), Uint8Array.of(1, 2));
    expect(states.isPresent(4)).toBe(true);
    expect([bytes[4 * PAGE + 9], bytes[4 * PAGE + 10], bytes[4 * PAGE + 12]]).toEqual([5, 1, 5]);
  });

  it('where the pager refuses: the same error, and nothing is written', async () => {
    const { memory, bytes } = setUp({ ensure: () => Promise.reject(new Error('the pager')) });
    await expect(memory.read(at(0), 1)).rejects.toThrow('the pager');
    await expect(memory.write(at(0), Uint8Array.of(9))).rejects.toThrow('the pager');
    expect(bytes[0]).toBe(1);
  });

  it('where a page is removed before it is read: refused', async () => {
    const { memory } = setUp({ ensure: () => Promise.resolve() });
    await expect(memory.read(at(0), 1)).rejects.toMatchObject({ code: 'PAGE_MISSING' });
  });
});

describe('reading by blocking', () => {
  it('of local memory: the mapping is read', () => {
    const { memory, ensured } = setUp();
    expect([...memory.readBlocking(at(6), 1)]).toEqual([7]);
    expect(ensured).toEqual([]);
  });

  it('on the thread that would have to serve the page: DEADLOCK; elsewhere: it blocks', () => {
    const { memory, states } = setUp({ mustNotBlock: 'the resolver runs on this thread' });
    expect(() => memory.readBlocking(at(6), 1)).toThrow(refusal('DEADLOCK'));
    states.setPresent(page(6), true);
    expect([...memory.readBlocking(at(6), 1)]).toEqual([7]);
    states.set('frozen', page(6), true);
    expect(() => memory.readBlocking(at(6), 1)).toThrow(refusal('DEADLOCK'));
  });
});

describe('addresses outside every region', () => {
  it('by an access: refused; by a hint: ignored', async () => {
    const { memory, states, hinted } = setUp();
    states.setPresent(page(0, PAGES), true);
    const end = at(PAGES, -1);
    expect(() => memory.readSync(end, 2)).toThrow(refusal('BAD_RANGE'));
    expect(() => memory.readBlocking(end, 2)).toThrow(refusal('BAD_RANGE'));
    expect(() => memory.writeSync(gpa(0), Uint8Array.of(1))).toThrow(refusal('BAD_RANGE'));
    expect(() => memory.isPresent({ start: gpa(0), length: 1n })).toThrow(refusal('BAD_RANGE'));
    await expect(memory.read(end, 2)).rejects.toMatchObject({ code: 'BAD_RANGE' });
    memory.hint([{ start: gpa(0), length: BigInt(BASE + PAGE) }]);
    expect(hinted).toEqual([page(0)]);
  });
});

it('guest memory after close: accesses are refused, and a hint does nothing', async () => {
  const { memory, states, hinted } = setUp();
  states.setPresent(page(0, PAGES), true);
  memory.close();
  for (const access of [
    () => memory.readSync(at(0), 1),
    () => memory.writeSync(at(0), Uint8Array.of(1)),
    () => memory.readBlocking(at(0), 1),
    () => memory.isPresent({ start: at(0), length: 1n }),
  ])
    expect(access).toThrow(refusal('CLOSED'));
  await expect(memory.read(at(0), 1)).rejects.toMatchObject({ code: 'CLOSED' });
  memory.hint([{ start: at(0), length: 1n }]);
  expect(hinted).toEqual([]);
});
