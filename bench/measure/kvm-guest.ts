import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { type Backend, fileOffset, gpa, openPager, type PagerPolicy, type RegionSpec } from 'demand-paging';
import { composite } from 'demand-paging/backends/composite';
import { guestMemfd } from 'demand-paging/backends/guest-memfd';
import { type KvmBackend, kvmExit } from 'demand-paging/backends/kvm-exit';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { mapMemory, type Mapping, UFFD_REGISTER_MODE, Userfaultfd, uffdFailure } from 'demand-paging/linux';
import { expectedSum, GUEST, type Share, writeImage } from '../../examples/vmm/guest.js';
import { compare, type Comparison, type Reference, type Rounds, type Side } from './comparison.js';
import { CannotMeasure } from './failure.js';
import { GuestRun } from './guest-run.js';
import { type NativePrograms, ROOT } from './native.js';
import { type BenchResult, type Goal } from './result.js';
import { type Measured, rateOf } from './run.js';
import { bootstrapMedian, median, pairwiseRatios } from './statistics.js';
import { touchMemory } from './touch-memory.js';

const PAGE = 4096;
const MIB = 0x10_0000;
const BULK_PIECE = 0x200_0000;
const SOURCE = pathToFileURL(join(ROOT, 'bench', 'children', 'image-source.mjs')).href;

export interface KvmGuestOptions {
  readonly rounds: number;
  /** Of data, a vCPU. */
  readonly mebibytes: number;
  /** The kernel's demand_paging_test, built; absent: not measured beside. */
  readonly selftest: string | undefined;
  readonly progress: NonNullable<Rounds['progress']>;
}

/** One way in which the guest's memory comes. */
interface Way {
  readonly name: string;
  backend(vm: number, vcpus: number): Backend | KvmBackend;
  readonly pageSize: number;
  readonly policy: Partial<PagerPolicy>;
  /** Passes before the one that counts: until the resolver's code is compiled. */
  readonly warmUps: number;
  /** Of the ceiling. */
  readonly goal?: Goal;
  /** Of the C program. */
  readonly goalOfC?: Goal;
}

const chunked = (unit: string, pageSize: number, goal?: Goal): Way[] => {
  const common = { pageSize, policy: { faultAroundPages: 1 }, warmUps: 0, ...(goal && { goal }) };
  return [
    { name: `kvm-exit, ${unit}`, backend: (vm, vcpus) => kvmExit({ vm, vcpus }), ...common },
    { name: `composite, ${unit}`, backend: (vm, vcpus) => composite({ vm, vcpus }), ...common },
    // guest_memfd has no huge pages, and no goal.
    {
      name: `guest-memfd, ${unit}`,
      backend: (vm, vcpus) => guestMemfd({ vm, vcpus }),
      pageSize,
      policy: { faultAroundPages: 1 },
      warmUps: 0,
    },
  ];
};

const WAYS: readonly Way[] = [
  {
    name: 'userfaultfd, a page at a time',
    backend: () => userfaultfd(),
    pageSize: PAGE,
    policy: { faultAroundPages: 1 },
    warmUps: 3,
    goalOfC: { atLeast: 0.9 },
  },
  {
    name: 'userfaultfd, 1 MiB around',
    backend: () => userfaultfd(),
    pageSize: PAGE,
    policy: { faultAroundPages: 256 },
    warmUps: 1,
    goal: { atLeast: 0.7 },
  },
  ...chunked('64 KiB', MIB / 16),
  ...chunked('512 KiB', MIB / 2),
  ...chunked('2 MiB', 2 * MIB, { atLeast: 0.7 }),
];

/** As in the kernel's own test: one handler for each vCPU. */
const HANDLER_A_VCPU: Way = {
  ...WAYS[0]!,
  name: 'userfaultfd, a page at a time, a resolver a vCPU',
  backend: (_vm, vcpus) => userfaultfd({ shards: vcpus }),
};

const isKvm = (backend: Backend): backend is KvmBackend => 'exitHandlerToken' in backend;

/** Why guests cannot be run here; undefined where they can. */
export function guestsLacking(): { readonly what: string; readonly hint: string } | undefined {
  if (process.arch !== 'x64')
    return { what: `the guest is for x64, not ${process.arch}`, hint: 'Run it there' };
  try {
    using vm = new GuestRun([]);
    if (vm.vm.sharesGuestMemfd) return undefined;
    return { what: 'no guest_memfd that can be mapped', hint: 'Linux 6.18 or newer' };
  } catch (error) {
    return { what: (error as Error).message, hint: 'It needs /dev/kvm' };
  }
}

/** A guest's image and the part of it that each vCPU works on, the same for every side. */
class Work implements Disposable {
  readonly shares: readonly Share[];
  readonly image: Mapping;
  readonly sum: bigint;

  constructor(mebibytes: number, vcpus: number) {
    const pages = (mebibytes * MIB) / PAGE;
    this.shares = Array.from({ length: vcpus }, (_, index) => ({
      start: GUEST.data + index * pages * PAGE,
      pages,
    }));
    this.image = mapMemory({ kind: 'shmem', length: GUEST.data + vcpus * pages * PAGE });
    writeImage(this.image.bytes());
    this.sum = this.shares.reduce((sum, { start, pages: count }) => sum + expectedSum(start, count), 0n);
  }

  [Symbol.dispose](): void {
    this.image.dispose();
  }
}

/** Measures every way with one vCPU and with two. Throws CannotMeasure. */
export async function measureKvmGuest(
  programs: NativePrograms,
  { rounds, mebibytes, selftest, progress }: KvmGuestOptions,
): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const vcpus of [1, 2]) {
    using work = new Work(mebibytes, vcpus);
    const ceiling: Side = { what: 'one bulk copy first', run: () => runCeiling(work) };
    const c: Side = { what: 'the same in C', run: () => runC(programs, work) };
    for (const way of WAYS) {
      const references: Reference[] = [{ ...ceiling, ...(way.goal && { goal: way.goal }) }];
      if (way.goalOfC) references.unshift({ ...c, goal: way.goalOfC });
      const comparison: Comparison = {
        name: `guest, ${vcpus} vCPU${vcpus > 1 ? 's' : ''}, ${way.name}`,
        ours: { what: 'the library', run: () => runWay(way, work) },
        references,
      };
      results.push(
        ...(await compare(comparison, { count: rounds, sum: work.sum, prepare: touchMemory, progress })),
      );
    }
    if (selftest !== undefined) results.push(await beside(selftest, work, mebibytes, rounds));
  }
  return results;
}

async function runWay(way: Way, { shares, image }: Work): Promise<Measured> {
  using guest = new GuestRun(shares);
  const backend = way.backend(guest.vm.fd, shares.length);
  const region = (start: number, length: number): RegionSpec => ({
    gpa: gpa(start),
    length: BigInt(length),
    sourceOffset: fileOffset(start),
    memory: backend.name === 'guest-memfd' ? 'guest-memfd' : 'anonymous',
    pageSize: way.pageSize,
  });
  const pager = await openPager({
    backend,
    regions: [region(0, GUEST.low_bytes), region(GUEST.data, image.length - GUEST.data)],
    source: {
      module: SOURCE,
      export: 'openImage',
      options: { address: image.address, length: image.length },
    },
    needs: ['vcpu'],
    policy: way.policy,
  });
  const low = [{ start: gpa(0), length: BigInt(GUEST.low_bytes) }];
  const data = [{ start: gpa(GUEST.data), length: BigInt(image.length - GUEST.data) }];
  await pager.ensure(low); // as on every side: only the data is measured
  if (isKvm(backend)) await backend.publish(low);
  else
    pager.layout.regions.forEach((each, slot) =>
      guest.vm.setSlot({
        slot,
        gpa: Number(each.gpa),
        length: Number(each.length),
        userspace: Number(each.hva),
      }),
    );
  const tokenOf = (index: number) => (isKvm(backend) ? backend.exitHandlerToken(index) : undefined);
  for (let pass = 0; pass < way.warmUps; pass++) {
    await guest.run(tokenOf);
    await pager.discard(data, { then: 'refetch' });
  }
  const measured = await guest.run(tokenOf);
  await pager.close({ missing: 'leave' });
  return measured;
}

/** The same guest after everything was copied in bulk, both timed together. */
async function runCeiling({ shares, image }: Work): Promise<Measured> {
  using guest = new GuestRun(shares);
  using memory = mapMemory({ kind: 'anonymous', length: image.length, transparentHugePages: false });
  using uffd = Userfaultfd.open();
  uffd.register(memory.address, memory.length, UFFD_REGISTER_MODE.MISSING);
  guest.vm.setSlot({ slot: 0, gpa: 0, length: memory.length, userspace: memory.address });
  const copy = (from: number, to: number): void => {
    for (let at = from; at < to; at += BULK_PIECE) {
      const length = Math.min(BULK_PIECE, to - at);
      const result = uffd.port.copy(memory.address + at, image.address + at, length);
      if (result < 0) throw uffdFailure('COPY', result, memory.address + at, length);
    }
  };
  copy(0, GUEST.data);
  return await guest.run(
    () => undefined,
    () => copy(GUEST.data, image.length),
  );
}

/** The C program: a process of its own each time; a first pass warms it up. */
async function runC(programs: NativePrograms, { shares, image }: Work): Promise<Measured> {
  const places = [GUEST.pageTables, GUEST.code, GUEST.stacks, GUEST.counter];
  const numbers = [GUEST.data, shares[0]!.pages, shares.length, ...places].map(String);
  const path = `/proc/${process.pid}/fd/${image.fd}`;
  const child = spawn(programs.guest, [path, ...numbers], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  child.stdin.end('run\nrun\n');
  let line: string | undefined;
  for await (const answer of createInterface({ input: child.stdout })) line = answer;
  await ended;
  if (line === undefined) throw new Error(`the C guest ended with status ${child.exitCode}`);
  const answer = JSON.parse(line) as { pages: number; took_ns: number; sum: string } | { error: string };
  if ('error' in answer)
    throw new CannotMeasure(`the C guest fails at ${answer.error}`, 'It needs /dev/kvm and /dev/userfaultfd');
  return { rate: rateOf(answer.pages, answer.took_ns), sum: BigInt(`0x${answer.sum}`) };
}

/** The kernel's own test of the same, whose guest is at CPL 0: shown beside ours, and no goal. */
async function beside(selftest: string, work: Work, mebibytes: number, rounds: number): Promise<BenchResult> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    ours.push((await runWay(HANDLER_A_VCPU, work)).rate);
    theirs.push(runSelftest(selftest, mebibytes, work.shares.length));
  }
  const { value, interval } = bootstrapMedian(pairwiseRatios(ours, theirs));
  const vcpus = work.shares.length;
  const figure = (what: string, each: readonly number[]) => ({
    what,
    value: median(each),
    unit: 'pages/s',
    each,
  });
  return {
    name: `guest, ${vcpus} vCPU${vcpus > 1 ? 's' : ''}, beside the kernel's demand_paging_test`,
    ratio: value,
    interval,
    goal: undefined,
    met: undefined,
    runs: rounds,
    ours: figure(`the library, ${HANDLER_A_VCPU.name}`, ours),
    reference: figure('demand_paging_test -u MISSING', theirs),
  };
}

function runSelftest(selftest: string, mebibytes: number, vcpus: number): number {
  const args = ['-b', `${mebibytes}M`, '-u', 'MISSING', '-v', String(vcpus)];
  const { status, stdout, stderr, error } = spawnSync(selftest, args, { encoding: 'utf8' });
  const rate = /Overall demand paging rate:\s+([\d.]+)/i.exec(stdout ?? '')?.[1];
  if (error ?? (status !== 0 || rate === undefined))
    throw new CannotMeasure(
      `${selftest} ended with ${error?.message ?? status}: ${(stderr ?? '').trim() || 'no rate'}`,
      'Build it from the sources of this kernel, or leave --selftest away',
    );
  return Number(rate);
}
