import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { gpa, openPager } from '../../../src/api/index.js';
import { memory } from '../../../src/sources/index.js';
import {
  mapMemory,
  residentPages,
  transparentHugePages,
  userfaultfdSupport,
  UFFD_FEATURE,
} from '../../../src/linux/index.js';
import { backendOf, ENTRY, PAGE, PAGED, pagerOver, PORT, Rig } from './rig.js';

const HUGE = 0x20_0000;
const PAGES = 6;

/** Word `n` of the memory is its address: any other value is another word's. */
function image(): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(PAGES * HUGE);
  const words = new BigUint64Array(shared);
  for (let word = 0; word < words.length; word++) words[word] = BigInt(PAGED + word * 8);
  return shared;
}

/** Bytes of transparent huge pages in a stretch of this process's memory. Source: proc_pid_smaps(5). */
function huge_bytes(address: number, length: number): number {
  let sum = 0;
  let inside = false;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const range = /^([\da-f]+)-([\da-f]+) /.exec(line);
    if (range) {
      const [start, end] = [parseInt(range[1]!, 16), parseInt(range[2]!, 16)];
      inside = start < address + length && end > address;
    } else if (inside) sum += 1024 * Number(/^AnonHugePages:\s+(\d+) kB/.exec(line)?.[1] ?? 0);
  }
  return sum;
}

test('installer: pages of 2 MiB with a userfaultfd: moved in whole, present contents are kept', async (context) => {
  using rig = Rig.open(context);
  if ((userfaultfdSupport().mask & BigInt(UFFD_FEATURE.MOVE)) === 0n)
    context.skip('no UFFDIO_MOVE (Linux 6.8)');
  if (transparentHugePages() === 'never') context.skip('transparent huge pages are turned off');
  const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 1 });
  const { pager } = await pagerOver(backend, [rig.region((PAGES * HUGE) / PAGE, HUGE)], image());
  const length = PAGES * HUGE;
  const all = [{ start: gpa(PAGED), length: BigInt(length) }];
  const expected = new Uint8Array(image());
  const seen = async (): Promise<void> =>
    expect(Buffer.compare(await pager.memory!.read(gpa(PAGED), length), expected)).toBe(0);
  await seen();
  const hva = Number(pager.layout.hvaOf(0));
  expect(huge_bytes(hva, length)).toBe(length);
  // The vCPU checks the first word of each base page; a store of its own stays when others are taken away.
  const word = PAGED + HUGE + 5 * PAGE;
  const load = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(word) }), backend.exitHandlerToken(0));
  expect(await load.result).toMatchObject({ handled: 'unhandled', exit: { kind: 'io', port: PORT.done } });
  await pager.memory!.write(gpa(word), Uint8Array.of(7));
  await pager.discard([{ start: gpa(PAGED + 2 * HUGE), length: BigInt(4 * HUGE) }], { then: 'refetch' });
  expected[word - PAGED] = 7;
  await seen();
  expect(pager.statistics()).toMatchObject({ presentPages: PAGES, vanishedPages: 0 });
  await pager.discard(all, { then: 'refetch' });
  expected[word - PAGED] = new Uint8Array(image())[word - PAGED]!;
  await seen();
  await pager.close({ missing: 'leave' });
});

test('installer: contents in memory of the VMM: copied, not moved out of it', async (context) => {
  using rig = Rig.open(context);
  using saved = mapMemory({ kind: 'anonymous', length: PAGES * HUGE, transparentHugePages: true });
  const expected = new Uint8Array(image());
  saved.bytes().set(expected);
  const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 1 });
  const pager = await openPager({
    backend,
    regions: [rig.region((PAGES * HUGE) / PAGE, HUGE)],
    source: memory({ address: saved.address, length: saved.length }),
    needs: ['vcpu', 'vmm'],
  });
  await pager.prefetch();
  const seen = await pager.memory!.read(gpa(PAGED), saved.length);
  expect(Buffer.compare(seen, expected)).toBe(0);
  await pager.close({ missing: 'leave' });
  expect(residentPages(saved.address, saved.length).every((resident) => resident === 1)).toBe(true);
  expect(Buffer.compare(saved.bytes(), expected)).toBe(0);
});
