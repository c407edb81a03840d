import { expect, test } from 'vitest';
import { type Accessor, startAccessor } from '../../../src/accessors/index.js';
import {
  type Backend,
  type DemandPagingError,
  fileOffset,
  gpa,
  openPager,
  type Pager,
} from '../../../src/api/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { ERRNO } from '../../../src/linux/index.js';
import { PAGE, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';

skipWithoutUserfaultfd();

const LENGTH = 4 * PAGE;
const HELD = 3;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const rangeOf = (page: number) => [{ start: gpa(page * PAGE), length: BigInt(PAGE) }];

interface Scene {
  readonly pager: Pager;
  /** What the source's reads do: 0 as ever, 1 wait, 2 end the thread. */
  readonly control: Int32Array;
  /** Waits at the page that the source is asked for in vain. */
  readonly stuck: Accessor;
  readonly waiting: Accessor;
  /** Whether removing has begun and not ended. */
  readonly removing: () => boolean;
}

/**
 * A pager whose resolver is inside a read of its source from the moment on at which pages are about to be
 * removed.
 */
async function open(): Promise<Scene> {
  const control = new Int32Array(new SharedArrayBuffer(8));
  const inner = userfaultfd();
  let begun = false;
  let ended = false;
  const held: Accessor[] = [];
  const backend: Backend = {
    name: inner.name,
    probe: (memory) => inner.probe(memory),
    attach: async (layout, states) => {
      const attachment = await inner.attach(layout, states);
      const discard = attachment.discard.bind(attachment);
      attachment.discard = async (pages) => {
        Atomics.store(control, 0, 1);
        void held[0]!.access({ page: HELD, length: 8 });
        while (Atomics.load(control, 1) === 0) await turn();
        begun = true;
        await discard(pages);
        ended = true;
      };
      return attachment;
    },
  };
  const pager = await openPager({
    backend,
    regions: [
      {
        gpa: gpa(0),
        length: BigInt(LENGTH),
        sourceOffset: fileOffset(0),
        memory: 'anonymous',
        pageSize: PAGE,
      },
    ],
    source: {
      module: new URL('./fixtures/source.mjs', import.meta.url).href,
      export: 'heldUp',
      options: { length: LENGTH, control: control.buffer },
    },
    policy: { faultAroundPages: 1, sourceTimeout_ms: 1000 },
  });
  await pager.ensure(rangeOf(0));
  const stuck = await startAccessor('vmm-syscall', pager.layout);
  held.push(stuck);
  const waiting = await startAccessor('external-vm-readv', pager.layout);
  return { pager, control, stuck, waiting, removing: () => begun && !ended };
}

const gone = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'fulfilled',
    (error: unknown) => (error as DemandPagingError).code,
  );

test('discarding holds up no thread while the resolver is inside its source, and ends when it comes back', async () => {
  const { pager, control, stuck, waiting, removing } = await open();
  const discarded = pager.discard(rangeOf(0), { then: 'refetch' });
  while (!removing()) await turn();
  for (let turns = 0; turns < 100; turns++) await turn();
  expect(removing()).toBe(true);
  Atomics.store(control, 0, 0);
  Atomics.notify(control, 0);
  await discarded;
  expect(await waiting.access({ page: 0, length: 8 })).toMatchObject({ ok: true });
  await pager.close();
  await Promise.all([stuck.stop(), waiting.stop()]);
});

test.each([
  ['its source ends the thread', 2, 'HANDLER_DIED'],
  ['its source does not come back in time', 1, 'SOURCE_TIMEOUT'],
] as const)(
  'the resolver dies while pages are discarded: %s; accesses to them fail',
  async (_, word, why) => {
    const { pager, control, stuck, waiting, removing } = await open();
    const discarded = gone(pager.discard(rangeOf(0), { then: 'refetch' }));
    while (!removing()) await turn();
    const access = waiting.access({ page: 0, length: 8 });
    Atomics.store(control, 0, word);
    Atomics.notify(control, 0);
    expect(await discarded).toBe(why);
    expect(await waiting.access({ page: 1, length: 8 })).toEqual({ ok: false, errno: ERRNO.EFAULT });
    const early = await access;
    if (!early.ok) expect(early.errno).toBe(ERRNO.EFAULT); // before the pages went it found them there
    expect(await waiting.access({ page: 0, length: 8 })).toEqual({ ok: false, errno: ERRNO.EFAULT });
    await pager.close().catch(() => {});
    await Promise.all([stuck.stop(), waiting.stop()]);
  },
);
