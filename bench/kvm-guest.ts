// How fast a guest's memory comes: a guest at CPL 3 reads and writes one word of every page, all of them missing
// at the start. The ceiling is the same guest after one bulk copy of the same bytes, both timed together.
//   node scripts/run-typescript.mjs bench kvm-guest [MiB a vCPU] [rounds]
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import {
  type Backend,
  fileOffset,
  gpa,
  openPager,
  type PageSource,
  type PagerPolicy,
  type RegionSpec,
} from 'demand-paging';
import { composite } from 'demand-paging/backends/composite';
import { guestMemfd } from 'demand-paging/backends/guest-memfd';
import { type KvmBackend, kvmExit } from 'demand-paging/backends/kvm-exit';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import {
  duplicate,
  Kvm,
  type KvmVm,
  mapMemory,
  type Mapping,
  type MappingToken,
  Mapping as MappingClass,
  raw,
  UFFD_REGISTER_MODE,
  Userfaultfd,
  uffdFailure,
} from 'demand-paging/linux';
import { expectedSum, GUEST, restoreVcpu, type Share, writeImage } from '../examples/vmm/guest.js';
import { runVcpu, type VcpuData, type VcpuReport } from '../examples/vmm/vcpu.js';

const PAGE = 4096;
const KVM_SET_TSS_ADDR = 0xae47;
const TSS_ADDRESS = 0xfffb_d000;
const BULK_PIECE = 0x200_0000;

/** The source, opened in the resolver's thread: the image lies in this process, so nothing is copied on the way. */
export function openImage(token: MappingToken): PageSource {
  const image = MappingClass.borrow(token);
  return {
    synchronous: true,
    length: token.length,
    read(offset, into) {
      into.set(image.bytes(offset, into.length));
      return into.length;
    },
    address: (offset) => token.address + offset,
  };
}

interface Way {
  readonly name: string;
  readonly backend: (vm: KvmVm, vcpus: number) => Backend | KvmBackend;
  readonly pageSize: number;
  readonly policy: Partial<PagerPolicy>;
}

const MIB = 0x10_0000;
const WAYS: readonly Way[] = [
  {
    name: 'userfaultfd, a page at a time',
    backend: () => userfaultfd(),
    pageSize: PAGE,
    policy: { faultAroundPages: 1 },
  },
  {
    name: 'userfaultfd, 1 MiB around',
    backend: () => userfaultfd(),
    pageSize: PAGE,
    policy: { faultAroundPages: 256 },
  },
  ...[0.0625, 0.5, 2].flatMap((mib): Way[] => {
    const common = { pageSize: mib * MIB, policy: { faultAroundPages: 1 } };
    const unit = mib < 0.1 ? '64 KiB' : mib < 1 ? '512 KiB' : '2 MiB';
    return [
      { name: `kvm-exit, ${unit}`, backend: (vm, vcpus) => kvmExit({ vm: vm.fd, vcpus }), ...common },
      { name: `composite, ${unit}`, backend: (vm, vcpus) => composite({ vm: vm.fd, vcpus }), ...common },
      { name: `guest-memfd, ${unit}`, backend: (vm, vcpus) => guestMemfd({ vm: vm.fd, vcpus }), ...common },
    ];
  }),
];

const isKvm = (backend: Backend): backend is KvmBackend => 'gate' in backend;

/** Starts the guest's vCPUs, lets `prepare` run and them begin, and returns how long all took, in milliseconds. */
async function timeGuest(
  kvm: Kvm,
  vm: KvmVm,
  shares: readonly Share[],
  gate: (index: number) => VcpuData['gate'],
  prepare: () => void,
): Promise<number> {
  const start = new SharedArrayBuffer(4);
  const ends: Promise<void>[] = [];
  await Promise.all(
    shares.map((share, index) => {
      using vcpu = vm.createVcpu(index);
      restoreVcpu(vcpu, index, share);
      const data: VcpuData = {
        role: 'vcpu',
        descriptor: duplicate(vcpu.fd),
        runBytes: kvm.runBytes,
        gate: gate(index),
        start,
      };
      const worker = new Worker(new URL(import.meta.url), { workerData: data });
      return new Promise<void>((ready, broken) => {
        ends.push(
          new Promise((resolve, reject) => {
            worker.on('error', reject);
            worker.on('message', (message: VcpuReport) => {
              if (message.kind === 'started') ready();
              else if (message.kind === 'failed') reject(new Error(message.why));
              else if (message.sum !== expectedSum(share.start, share.pages))
                reject(new Error(`vCPU ${index} computed ${message.sum}`));
              else resolve();
            });
          }),
        );
        worker.on('error', broken);
      });
    }),
  );
  const began = performance.now();
  prepare();
  Atomics.store(new Int32Array(start), 0, 1);
  Atomics.notify(new Int32Array(start), 0);
  await Promise.all(ends);
  return performance.now() - began;
}

function makeVm(kvm: Kvm): KvmVm {
  const vm = kvm.createVm();
  raw.ioctl(vm.fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
  return vm;
}

async function timeWay(way: Way, image: Mapping, shares: readonly Share[]): Promise<number> {
  using kvm = Kvm.open();
  using vm = makeVm(kvm);
  const backend = way.backend(vm, shares.length);
  const region = (start: number, length: number): RegionSpec => ({
    gpa: gpa(start),
    length: BigInt(length),
    sourceOffset: fileOffset(start),
    memory: backend.name === 'guest-memfd' ? 'guest-memfd' : 'anonymous',
    pageSize: way.pageSize,
  });
  const pager = await openPager({
    backend,
    regions: [region(0, GUEST.lowBytes), region(GUEST.data, image.length - GUEST.data)],
    source: { module: import.meta.url, export: 'openImage', options: image.token },
    needs: ['vcpu'],
    policy: way.policy,
  });
  const low = [{ start: gpa(0), length: BigInt(GUEST.lowBytes) }];
  await pager.ensure(low); // as everywhere: only the data is measured
  if (isKvm(backend)) await backend.publish(low);
  else
    pager.layout.regions.forEach((each, slot) =>
      vm.setSlot({ slot, gpa: Number(each.gpa), length: Number(each.length), userspace: Number(each.hva) }),
    );
  const elapsed = await timeGuest(
    kvm,
    vm,
    shares,
    (index) => (isKvm(backend) ? backend.gate(index) : undefined),
    () => {},
  );
  await pager.close({ missing: 'leave' });
  return elapsed;
}

/** One bulk copy, then the guest. */
async function timeCeiling(image: Mapping, shares: readonly Share[]): Promise<number> {
  using kvm = Kvm.open();
  using vm = makeVm(kvm);
  using memory = mapMemory({ kind: 'anonymous', length: image.length, transparentHugePages: false });
  const uffd = Userfaultfd.open();
  uffd.register(memory.address, memory.length, UFFD_REGISTER_MODE.MISSING);
  vm.setSlot({ slot: 0, gpa: 0, length: memory.length, userspace: memory.address });
  const copy = (from: number, to: number): void => {
    for (let at = from; at < to; at += BULK_PIECE) {
      const length = Math.min(BULK_PIECE, to - at);
      const result = uffd.port.copy(memory.address + at, image.address + at, length);
      if (result < 0) throw uffdFailure('COPY', result, memory.address + at, length);
    }
  };
  copy(0, GUEST.data);
  const elapsed = await timeGuest(
    kvm,
    vm,
    shares,
    () => undefined,
    () => copy(GUEST.data, image.length),
  );
  uffd.close();
  return elapsed;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

async function main(megabytes: number, rounds: number): Promise<void> {
  for (const vcpus of [1, 2]) {
    const pages = (megabytes * MIB) / PAGE;
    const shares = Array.from({ length: vcpus }, (_, index): Share => ({
      start: GUEST.data + index * pages * PAGE,
      pages,
    }));
    using image = mapMemory({ kind: 'anonymous', length: GUEST.data + vcpus * pages * PAGE });
    writeImage(image.bytes());
    const ceiling: number[] = [];
    const times = WAYS.map((): number[] => []);
    for (let round = 0; round < rounds; round++) {
      ceiling.push(await timeCeiling(image, shares));
      for (const [index, way] of WAYS.entries()) times[index]!.push(await timeWay(way, image, shares));
    }
    const best = median(ceiling);
    const rate = (ms: number): string => `${((vcpus * pages) / ms).toFixed(0)} thousand pages/s`;
    console.log(
      `${vcpus} vCPUs, ${megabytes} MiB each, median of ${rounds}: ceiling ${best.toFixed(0)} ms, ${rate(best)}`,
    );
    for (const [index, way] of WAYS.entries()) {
      const time = median(times[index]!);
      console.log(
        `  ${way.name.padEnd(32)} ${time.toFixed(0).padStart(6)} ms  ${rate(time).padStart(24)}  ${(best / time).toFixed(2)} of the ceiling`,
      );
    }
  }
}

if (isMainThread) await main(Number(process.argv[2] ?? 64), Number(process.argv[3] ?? 5));
else if ((workerData as Partial<VcpuData>).role === 'vcpu') runVcpu(workerData as VcpuData);
