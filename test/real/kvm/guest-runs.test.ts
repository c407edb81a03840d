import { describe, expect, test } from 'vitest';
import { gpa, type MemoryKind } from '../../../src/api/index.js';
import {
  backendOf,
  ENTRY,
  type Flavour,
  imageOf,
  LOW,
  memoryOf,
  PAGE,
  PAGED,
  PAGED_PAGE,
  pagerOver,
  PORT,
  Rig,
} from './rig.js';

const PAGES = 256;
const DATA = PAGED + PAGED_PAGE.data * PAGE;
const COUNT = PAGES - PAGED_PAGE.data;

/** What a scan of all data pages adds up to. */
const SUM = Array.from({ length: COUNT }, (_, page) => BigInt(DATA + page * PAGE)).reduce((a, b) => a + b);

const CASES: readonly { flavour: Flavour; memory: MemoryKind; pageSize: number; from: 'low' | 'paged' }[] = [
  { flavour: 'kvm-exit', memory: 'anonymous', pageSize: PAGE, from: 'low' },
  { flavour: 'kvm-exit', memory: 'shmem', pageSize: 0x4000, from: 'low' },
  { flavour: 'composite', memory: 'anonymous', pageSize: PAGE, from: 'paged' },
  { flavour: 'composite', memory: 'anonymous', pageSize: 0x1_0000, from: 'paged' },
  { flavour: 'composite', memory: 'shmem', pageSize: 0x4000, from: 'paged' },
  { flavour: 'guest-memfd', memory: 'guest-memfd', pageSize: PAGE, from: 'paged' },
  { flavour: 'guest-memfd', memory: 'guest-memfd', pageSize: 0x1_0000, from: 'paged' },
];

describe('a guest with all of its memory missing', () => {
  test.for(CASES)(
    'runs to its end: $flavour, $memory, pages of $pageSize, tables and code $from',
    async ({ flavour, memory, pageSize, from }, context) => {
      using rig = Rig.open(context);
      const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1 });
      const { pager } = await pagerOver(backend, [rig.region(PAGES, pageSize, memory)], imageOf(PAGES));
      const paged = { code: PAGED + PAGED_PAGE.code * PAGE, tables: PAGED };
      const stack = PAGED + (PAGED_PAGE.stacks + 1) * PAGE;
      const counter = PAGED + PAGED_PAGE.counter * PAGE;
      const registers = from === 'paged' ? { rsp: BigInt(stack), r10: BigInt(counter) } : {};
      const vcpu = rig.vcpu(
        ENTRY.scan,
        { rdi: BigInt(DATA), rsi: BigInt(COUNT), ...registers },
        from === 'paged' ? paged : LOW,
      );
      const { result } = await rig.run(vcpu, backend.exitHandlerToken(0));
      expect(await result).toMatchObject({
        handled: 'unhandled',
        exit: { kind: 'io', port: PORT.done },
        rax: SUM,
        r9: BigInt(COUNT),
      });
      const last = await pager.memory!.read(gpa(DATA + (COUNT - 1) * PAGE), 16);
      expect([...new BigUint64Array(last.buffer)]).toEqual([BigInt(DATA + (COUNT - 1) * PAGE), SUM]);
      expect(pager.statistics().fetches).toBeGreaterThanOrEqual((COUNT * PAGE) / pageSize);
      await pager.close({ missing: 'leave' });
    },
  );
});

test('many vCPUs fault on one page at once: all are served', async (context) => {
  using rig = Rig.open(context);
  const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 3 });
  const { pager } = await pagerOver(
    backend,
    [rig.region(PAGES, PAGE, memoryOf('composite'))],
    imageOf(PAGES),
  );
  const runs = await Promise.all(
    [0, 1, 2].map((index) =>
      rig.run(
        rig.vcpu(ENTRY.scan, { rdi: BigInt(DATA), rsi: BigInt(COUNT) }),
        backend.exitHandlerToken(index),
      ),
    ),
  );
  for (const { result } of runs)
    expect(await result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, r9: BigInt(COUNT) });
  expect(rig.word(LOW.counter)).toBe(3n * SUM);
  expect(pager.statistics().fetches).toBe(COUNT);
  await pager.close({ missing: 'leave' });
});
