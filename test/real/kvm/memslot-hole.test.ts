import { expect, test } from 'vitest';
import { gpa } from '../../../src/api/index.js';
import { backendOf, ENTRY, imageOf, LOW, PAGE, PAGED, PAGED_PAGE, pagerOver, PORT, Rig } from './rig.js';

const PAGES = 64;
const DATA = PAGED + PAGED_PAGE.data * PAGE;
const COUNT = PAGES - PAGED_PAGE.data;
const SUM = Array.from({ length: COUNT }, (_, page) => BigInt(DATA + page * PAGE)).reduce((a, b) => a + b);

test.for(['kvm-exit', 'composite'] as const)(
  '%s: plain loads and stores to memslot holes: completed from the page',
  async (flavour, context) => {
    using rig = Rig.open(context);
    const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1, strategy: 'memslot-hole' });
    const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES), { needs: [] });
    const { result } = await rig.run(
      rig.vcpu(ENTRY.scan, { rdi: BigInt(DATA), rsi: BigInt(COUNT) }),
      backend.exitHandlerToken(0),
    );
    expect(await result).toMatchObject({
      handled: 'unhandled',
      exit: { kind: 'io', port: PORT.done },
      rax: SUM,
    });
    const last = await pager.memory!.read(gpa(PAGED + (PAGES - 1) * PAGE + 8), 8);
    expect(new DataView(last.buffer).getBigUint64(0, true)).toBe(SUM);
    expect(rig.word(LOW.counter)).toBe(SUM);
    // A slot for each page that comes, and holes have none to delete: only those that are joined with a
    // neighbour go.
    const left = COUNT.toString(2).replaceAll('0', '').length;
    expect(backend.memslotUpdates.slots).toBe(2 * COUNT - left);
    await pager.close({ missing: 'leave' });
  },
);

test('memslot-hole: a store is the first access to a page: changes its bytes only', async (context) => {
  using rig = Rig.open(context);
  const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1, strategy: 'memslot-hole' });
  const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES), { needs: [] });
  const { result } = await rig.run(
    rig.vcpu(ENTRY.store, { rdi: BigInt(DATA + 8), rsi: 0x1234n }),
    backend.exitHandlerToken(0),
  );
  expect(await result).toMatchObject({ exit: { kind: 'io' } });
  const words = new BigUint64Array((await pager.memory!.read(gpa(DATA), 16)).buffer);
  expect([...words]).toEqual([BigInt(DATA), 0x1234n]);
  await pager.close({ missing: 'leave' });
});
