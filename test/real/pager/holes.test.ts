import {
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
  closeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { gpa, openPager, type Pager, type SourceRef } from '../../../src/api/index.js';
import { kvmExit } from '../../../src/backends/kvm-exit/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { file, memory, zero } from '../../../src/sources/index.js';
import { PAGE, region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { vmOrSkip } from './vm.js';

skipWithoutUserfaultfd();

const PAGES = 16_384; // 64 MiB
const LENGTH = PAGES * PAGE;
const folder = mkdtempSync(join(tmpdir(), 'holes-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A file of holes but for page 100. */
function sparseFile(): string {
  const path = join(folder, 'image');
  writeFileSync(path, '');
  truncateSync(path, LENGTH);
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.alloc(PAGE, 7), 0, PAGE, 100 * PAGE);
  closeSync(fd);
  return path;
}

function sparseMemory(): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(LENGTH);
  new Uint8Array(shared).fill(7, 100 * PAGE, 101 * PAGE);
  return shared;
}

/** KiB of the region's memory that are resident: the kernel's page of zeros is not counted. */
function residentKib(pager: Pager): number {
  const start = pager.layout.hvaOf(0).toString(16);
  const smaps = readFileSync('/proc/self/smaps', 'latin1');
  const from = smaps.search(new RegExp(`^${start}-`, 'm'));
  expect(from, 'the mapping is listed').toBeGreaterThanOrEqual(0);
  return Number(/^Rss:\s+(\d+) kB$/m.exec(smaps.slice(from))![1]);
}

test('kvm-exit: holes of a sparse file are prefetched without memory, and written by a guest as anything', async (context) => {
  const vm = vmOrSkip(context);
  const START = 0x1_0000_0000;
  const pager = await openPager({
    backend: kvmExit({ vm: vm.fd, vcpus: 1 }),
    regions: [region(PAGES, 'anonymous', { gpa: gpa(START) })],
    source: file(sparseFile()),
    needs: [],
  });
  await pager.prefetch();
  expect(pager.complete).toBe(true);
  expect(residentKib(pager)).toBe(PAGE / 1024);
  const read = async (page: number): Promise<number> =>
    (await pager.memory!.read(gpa(START + page * PAGE), 1))[0]!;
  expect([await read(99), await read(100), await read(101)]).toEqual([0, 7, 0]);
  await pager.memory!.write(gpa(START + 101 * PAGE), Uint8Array.of(9));
  expect([await read(101), await read(102)]).toEqual([9, 0]);
  await pager.close();
  vm[Symbol.dispose]();
});

describe.each<readonly [string, () => SourceRef, number]>([
  ['a sparse file', () => file(sparseFile()), 1],
  ['sparse shared memory', () => memory(sparseMemory()), 1],
  ['zeros', () => zero(LENGTH), 0],
])('%s', (_, source, data) => {
  test('is prefetched without memory for its zeros, and reads right', async () => {
    const pager = await openPager({ backend: userfaultfd(), regions: [region(PAGES)], source: source() });
    expect(residentKib(pager)).toBe(0);
    await pager.prefetch();
    expect(pager.complete).toBe(true);
    expect(pager.statistics()).toMatchObject({ holePages: PAGES - data, fetched_bytes: data * PAGE });
    expect(residentKib(pager)).toBe((data * PAGE) / 1024);
    expect(pager.memory!.readBlocking(gpa(100 * PAGE), 1)[0]).toBe(data * 7);
    expect(pager.memory!.readBlocking(gpa(101 * PAGE), 1)[0]).toBe(0);
    // What is written there is the guest's, as anywhere.
    pager.memory!.writeSync(gpa(200 * PAGE), Uint8Array.of(9));
    expect(pager.memory!.readBlocking(gpa(200 * PAGE), 2)).toEqual(Uint8Array.of(9, 0));
    await pager.close();
  });
});
