import { describe, expect, test } from 'vitest';
import {
  type Attachment,
  type FaultPort,
  fileOffset,
  gpa,
  openPager,
  openPort,
  OUTCOME,
  type PageSource,
} from 'demand-paging';
import { memoryBackend } from 'demand-paging/backends/memory';

const PAGE = 4096;
const PAGES = 32;
const START = gpa(0x8000_0000);
const REGIONS = [
  {
    gpa: START,
    length: BigInt(PAGES * PAGE),
    sourceOffset: fileOffset(0),
    memory: 'anonymous',
    pageSize: PAGE,
  },
] as const;

/** Every 32-bit word is its own offset. */
const source: PageSource = {
  synchronous: true,
  length: PAGES * PAGE,
  read(offset, into) {
    const words = new Uint32Array(into.buffer, into.byteOffset, into.length / 4);
    for (let at = 0; at < words.length; at++) words[at] = offset + at * 4;
    return into.length;
  },
};
const wordAt = (offset: number): number[] => [...new Uint8Array(Uint32Array.of(offset).buffer)];
const at = (offset: number) => gpa(START + BigInt(offset));

describe('a pager on the memory backend', () => {
  test('accesses of every class wait for their page and get its bytes', async () => {
    const backend = memoryBackend();
    await using pager = await openPager({
      backend,
      regions: REGIONS,
      source,
      needs: ['vcpu', 'kernel', 'vmm'],
    });
    const sites = ['vcpu-load', 'vcpu-fetch', 'kernel-copy', 'vmm-load', 'external-vm-readv'] as const;
    const accesses = await Promise.all(
      sites.map((site, i) => backend.kernel.run({ site, gpa: at(i * 5 * PAGE + 128), length: 4 })),
    );
    for (const [i, access] of accesses.entries()) {
      expect([access.state, [...access.bytes]]).toEqual(['done', wordAt(i * 5 * PAGE + 128)]);
    }
    expect(pager.statistics().missingFaults).toBeGreaterThan(0);
  });

  test('an access over a page boundary waits for both pages', async () => {
    const backend = memoryBackend();
    await using _pager = await openPager({
      backend,
      regions: REGIONS,
      source,
      policy: { faultAroundPages: 1 },
    });
    const { bytes } = await backend.kernel.run({ site: 'vmm-load', gpa: at(PAGE - 4), length: 8 });
    expect([...bytes]).toEqual([...wordAt(PAGE - 4), ...wordAt(PAGE)]);
  });

  test('what is written stays, is removed, and is fetched anew', async () => {
    const backend = memoryBackend();
    await using pager = await openPager({ backend, regions: REGIONS, source });
    const page = { start: START, length: BigInt(PAGE) };
    const read = async (): Promise<number[]> => [
      ...(await backend.kernel.run({ site: 'vmm-load', gpa: START, length: 4 })).bytes,
    ];
    await backend.kernel.run({ site: 'vmm-store', gpa: START, bytes: Uint8Array.of(1, 2, 3, 4) });
    expect(await read()).toEqual([1, 2, 3, 4]);
    await pager.discard([page], { then: 'refetch' });
    expect(await read()).toEqual(wordAt(0));
    await pager.discard([page], { then: 'zero' });
    expect(await read()).toEqual([0, 0, 0, 0]);
  });

  test('a command whose rows are pending when the resolver fails is refused', async () => {
    const inner = memoryBackend();
    let broken = false;
    const pager = await openPager({
      backend: {
        name: 'never ready, then broken',
        probe: () => inner.probe(),
        async attach(layout, states): Promise<Attachment> {
          const beneath = await inner.attach(layout, states);
          const [shard] = beneath.shards;
          const port = await openPort(shard!.port);
          const failing: FaultPort = {
            staging: port.staging,
            take(batch, wait, timeout_ms) {
              if (broken) throw new Error('the port is broken');
              return port.take(batch, wait, timeout_ms);
            },
            resolve(batch) {
              for (let row = 0; row < batch.count; row++) batch.settle(row, OUTCOME.again, 0, 11);
            },
            ready: () => port.ready(),
            resident: (page) => port.resident(page),
            close: () => port.close(),
          };
          return {
            layout: beneath.layout,
            coverage: beneath.coverage,
            supports: beneath.supports,
            memory: beneath.memory,
            shards: [{ ...shard!, port: { where: 'here', open: () => failing } }],
            discard: (pages) => beneath.discard(pages),
            moved: () => {},
            abandonChild: () => {},
            close: () => beneath.close(),
          };
        },
      },
      regions: REGIONS,
      source,
    });
    pager.on('stopped', () => {});
    const poisoning = pager.poison([{ start: START, length: BigInt(PAGE) }]);
    setImmediate(() => (broken = true));
    await expect(poisoning).rejects.toMatchObject({ code: 'HANDLER_DIED' });
  });

  test('the memory itself is read and written by guest-physical address', async () => {
    const backend = memoryBackend();
    await using pager = await openPager({ backend, regions: REGIONS, source });
    expect([...(await pager.memory!.read(at(2 * PAGE - 2), 4))]).toEqual([
      ...wordAt(2 * PAGE - 4).slice(2),
      ...wordAt(2 * PAGE).slice(0, 2),
    ]);
    await pager.memory!.write(at(3 * PAGE - 1), Uint8Array.of(9, 8));
    const { bytes } = await backend.kernel.run({ site: 'kernel-copy', gpa: at(3 * PAGE - 1), length: 2 });
    expect([...bytes]).toEqual([9, 8]);
  });

  test('closing lets whoever waits fail, and the memory is gone', async () => {
    const never: PageSource = {
      synchronous: false,
      length: source.length,
      read: () => new Promise(() => {}),
    };
    const backend = memoryBackend();
    const pager = await openPager({ backend, regions: REGIONS, source: never });
    const waiting = backend.kernel.run({ site: 'vmm-load', gpa: START });
    await pager.close();
    expect((await waiting).state).toBe('errored');
    expect(() => pager.memory!.readSync(START, 1)).toThrow(expect.objectContaining({ code: 'CLOSED' }));
    await expect(backend.kernel.run({ site: 'vmm-load', gpa: START })).resolves.toMatchObject({
      state: 'errored',
    });
  });

  test.each([
    ['guest-memfd memory', { memory: 'guest-memfd' as const }],
    ['memory mapped elsewhere', { hva: 0x7f0000000000n as never }],
    ['a memory file', { file: { fd: 3, offset: fileOffset(0) } }],
  ])('%s is refused', async (_, wrong) => {
    const regions = [{ ...REGIONS[0], ...wrong }];
    await expect(openPager({ backend: memoryBackend(), regions, source })).rejects.toMatchObject({
      code: 'NOT_SUPPORTED',
    });
  });
});
