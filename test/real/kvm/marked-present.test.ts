import { describe, expect, test } from 'vitest';
import { fileOffset, gpa, type Pager, type RegionSpec } from '../../../src/api/index.js';
import { type VcpuExitHandlerToken } from '../../../src/kvm/index.js';
import { GUEST_MEMFD_SHARED, mapMemory, type Mapping } from '../../../src/linux/index.js';
import {
  backendOf,
  ENTRY,
  type Flavour,
  imageOf,
  memoryOf,
  PAGE,
  PAGED,
  pagerOver,
  PORT,
  Rig,
} from './rig.js';

const PAGES = 16;
const FLAVOURS: readonly Flavour[] = ['kvm-exit', 'composite', 'guest-memfd'];
const at = (page: number): number => PAGED + page * PAGE;
const range = (page: number, count = 1) => [{ start: gpa(at(page)), length: BigInt(count * PAGE) }];

/** Memory in a file with a second mapping, through which the VMM populates it. */
function fileOf(rig: Rig, flavour: Flavour): { second: Mapping; region: RegionSpec } {
  const length = PAGES * PAGE;
  const second =
    flavour === 'guest-memfd'
      ? mapMemory({ kind: 'file', length, fd: rig.vm.createGuestMemfd(length, GUEST_MEMFD_SHARED) })
      : mapMemory({ kind: 'shmem', length });
  const memory = flavour === 'guest-memfd' ? memoryOf(flavour) : 'shmem';
  return {
    second,
    region: { ...rig.region(PAGES, PAGE, memory), file: { fd: second.fd!, offset: fileOffset(0) } },
  };
}

const word = (mapping: Mapping, page: number, value: bigint): void => {
  const bytes = mapping.bytes(page * PAGE, 8);
  new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, value, true);
};

/** By a vCPU, and by the kernel through the VMM's mapping. */
async function expectSeen(rig: Rig, pager: Pager, token: VcpuExitHandlerToken, page: number): Promise<void> {
  const { result } = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(at(page)) }), token);
  expect(await result).toMatchObject({ handled: 'unhandled', exit: { port: PORT.done }, rax: 77n });
  const address = Number(pager.layout.hvaOf(page));
  const read = await rig.start<{ value?: bigint }>({ kind: 'syscall', address });
  expect((await read.result).value).toBe(77n);
}

describe.for(FLAVOURS)('%s: pages marked present', (flavour) => {
  test('before opening or while open: vCPUs read their contents', async (context) => {
    using rig = Rig.open(context);
    const { second, region } = fileOf(rig, flavour);
    word(second, 9, 77n);
    const present = new Uint8Array(PAGES / 8);
    present[1] = 1 << 1; // page 9
    const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 3 });
    const { pager } = await pagerOver(backend, [region], imageOf(PAGES), { states: { present } });
    const stopped: unknown[] = [];
    pager.on('stopped', (error) => stopped.push(error));
    await expectSeen(rig, pager, backend.exitHandlerToken(0), 9);
    word(second, 10, 77n);
    await pager.markPresent(range(10));
    await expectSeen(rig, pager, backend.exitHandlerToken(1), 10);
    // Others are fetched as ever; and what was told of can be discarded.
    await pager.discard(range(10), { then: 'refetch' });
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(at(10)) }),
      backend.exitHandlerToken(2),
    );
    expect(await result).toMatchObject({ handled: 'unhandled', rax: BigInt(at(10)) });
    expect(pager.statistics().fetches).toBe(1);
    expect(stopped).toEqual([]);
    await pager.close();
    second.dispose();
  });
});
