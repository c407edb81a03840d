import { expect, test } from 'vitest';
import { gpa } from '../../../src/api/index.js';
import { backendOf, ENTRY, imageOf, PAGE, PAGED, PAGED_PAGE, pagerOver, PORT, Rig } from './rig.js';

const PAGES = 64;
const DATA = PAGED + PAGED_PAGE.data * PAGE;
const COUNT = 24;

/** The numbers of the bits that are set. */
const pagesOf = (bitmap: Uint8Array): number[] =>
  Array.from({ length: bitmap.length * 8 }, (_, page) => page).filter(
    (page) => (bitmap[page >> 3]! >> (page & 7)) & 1,
  );

test.for([
  ['kvm-exit', PAGE],
  ['composite', PAGE],
  ['composite', 4 * PAGE],
] as const)('dirty-log-survives-memslot-updates: %s, pages of %i', async ([flavour, pageSize], context) => {
  using rig = Rig.open(context);
  const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1, logWrites: true });
  const { pager } = await pagerOver(backend, [rig.region(PAGES, pageSize)], imageOf(PAGES));
  expect(pagesOf(await backend.writtenPages())).toEqual([]);
  const vcpu = rig.vcpu(ENTRY.scan, { rdi: BigInt(DATA), rsi: BigInt(COUNT) });
  const { result } = await rig.run(vcpu, backend.exitHandlerToken(0));
  expect(await result).toMatchObject({ exit: { kind: 'io', port: PORT.done } });
  // The memslots of some written pages are deleted before the first call.
  await pager.discard([{ start: gpa(DATA), length: BigInt(8 * PAGE) }], { then: 'refetch' });
  const written = Array.from({ length: COUNT }, (_, page) => PAGED_PAGE.data + page);
  expect(pagesOf(await backend.writtenPages())).toEqual(written);
  expect(pagesOf(await backend.writtenPages())).toEqual([]);
  await pager.close({ missing: 'leave' });
});

test('writtenPages: memory or a backend without a dirty log: NOT_SUPPORTED', async (context) => {
  using rig = Rig.open(context);
  const logging = backendOf('guest-memfd', { vm: rig.vm.fd, vcpus: 1, logWrites: true });
  const attach = pagerOver(logging, [rig.region(PAGES, PAGE, 'guest-memfd')], imageOf(PAGES));
  await expect(attach).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1 });
  const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
  await expect(backend.writtenPages()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  await pager.close({ missing: 'leave' });
});
