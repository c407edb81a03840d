// A small VMM whose guest starts with nothing in its memory: code, page tables, stacks and data come when
// they are touched, by the backend that is named.
//   node scripts/run-typescript.mjs examples/vmm.ts [backend] [MiB of data a vCPU] [vCPUs] [KiB a page]
import { once } from 'node:events';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import {
  type AccessClass,
  type Backend,
  fileOffset,
  gpa,
  openPager,
  type PageSource,
  type Pager,
  type RegionSpec,
} from 'demand-paging';
import { composite } from 'demand-paging/backends/composite';
import { guestMemfd } from 'demand-paging/backends/guest-memfd';
import { type KvmBackend, kvmExit } from 'demand-paging/backends/kvm-exit';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { duplicate, Kvm, type KvmVm, raw } from 'demand-paging/linux';
import { expectedSum, GUEST, restoreVcpu, type Share, writeImage } from './vmm/guest.js';
import { runVcpu, type VcpuData, type VcpuReport } from './vmm/vcpu.js';

const PAGE = 4096;
const KVM_SET_TSS_ADDR = 0xae47;
const TSS_ADDRESS = 0xfffb_d000; // below 4 GiB, away from the guest's memory
const NAMES = ['userfaultfd', 'kvm-exit', 'memslot-hole', 'composite', 'guest-memfd'] as const;
type Name = (typeof NAMES)[number];

/** The source of pages, opened in the resolver's thread: a saved guest in shared memory. */
export function openImage(image: SharedArrayBuffer): PageSource {
  const bytes = new Uint8Array(image);
  return {
    synchronous: true,
    length: bytes.length,
    read(offset, into) {
      into.set(bytes.subarray(offset, offset + into.length));
      return into.length;
    },
  };
}

function backendOf(name: Name, vm: KvmVm, vcpus: number): Backend | KvmBackend {
  // One exit handler more than vCPUs: for this thread's own ioctls.
  const options = { vm: vm.fd, vcpus: vcpus + 1 };
  switch (name) {
    case 'userfaultfd':
      return userfaultfd();
    case 'kvm-exit':
      return kvmExit(options);
    case 'memslot-hole':
      return kvmExit({ ...options, strategy: 'memslot-hole' });
    case 'composite':
      return composite(options);
    case 'guest-memfd':
      return guestMemfd(options);
  }
}

const isKvm = (backend: Backend): backend is KvmBackend => 'exitHandlerToken' in backend;

async function main(name: Name, megabytes: number, vcpus: number, pageSize: number): Promise<void> {
  const pages = (megabytes * 1024 * 1024) / PAGE;
  const shares = Array.from({ length: vcpus }, (_, index): Share => ({
    start: GUEST.data + index * pages * PAGE,
    pages,
  }));
  const image = new SharedArrayBuffer(GUEST.data + vcpus * pages * PAGE);
  writeImage(new Uint8Array(image));

  using kvm = Kvm.open();
  using vm = kvm.createVm();
  raw.ioctl(vm.fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
  const backend = backendOf(name, vm, vcpus);
  const region = (start: number, length: number): RegionSpec => ({
    gpa: gpa(start),
    length: BigInt(length),
    sourceOffset: fileOffset(start),
    memory: name === 'guest-memfd' ? 'guest-memfd' : 'anonymous',
    pageSize: name === 'userfaultfd' ? PAGE : pageSize,
  });
  const pager = await openPager({
    backend,
    regions: [region(0, GUEST.low_bytes), region(GUEST.data, image.byteLength - GUEST.data)],
    source: { module: import.meta.url, export: 'openImage', options: image },
    needs: NEEDS[name],
    policy: { faultAroundPages: name === 'userfaultfd' ? 16 : 1 },
  });
  pager.on('source-failed', (_pages, error) => console.error(error));
  if (isKvm(backend)) await publishFirst(name, backend, pager);
  if (!isKvm(backend)) addSlots(vm, pager);

  console.log(`${name}: ${vcpus} vCPUs, ${megabytes} MiB each, every page missing`);
  const sums = await Promise.all(
    shares.map((share, index) => startVcpu({ kvm, vm, backend, pager, share, index })),
  );
  await check(pager, shares, sums);
  report(pager, backend, pages * vcpus);
  await pager.close({ missing: 'leave' }); // the guest is over
}

/** What must not go past the pager. A hole serves plain data; nothing there is for others to wait at. */
const NEEDS: Readonly<Record<Name, readonly AccessClass[]>> = {
  userfaultfd: ['vcpu', 'kernel', 'vmm'],
  'kvm-exit': ['vcpu'],
  'memslot-hole': [],
  composite: ['vcpu', 'kernel', 'vmm'],
  'guest-memfd': ['vcpu', 'kernel', 'vmm'],
};

/**
 * Brings and shows what a backend leaves to the VMM. `kvm-exit`, KVM's own accesses: the page tables, where
 * KVM walks them itself, and the task state segment (at 0), which it reads for port I/O where it emulates
 * that. `memslot-hole`, everything but data: code, page tables, stacks, and the counter, which is added to
 * atomically.
 */
async function publishFirst(name: Name, backend: KvmBackend, pager: Pager): Promise<void> {
  if (name !== 'kvm-exit' && name !== 'memslot-hole') return;
  const length = name === 'kvm-exit' ? 0x4000n : BigInt(GUEST.low_bytes);
  const ranges = [{ start: gpa(0), length }];
  await pager.ensure(ranges);
  await backend.publish(ranges);
}

/** A backend that is no part of KVM leaves the memslots to the VMM. */
function addSlots(vm: KvmVm, pager: Pager): void {
  pager.layout.regions.forEach((region, slot) => {
    vm.setSlot({
      slot,
      gpa: Number(region.gpa),
      length: Number(region.length),
      userspace: Number(region.hva),
    });
  });
}

interface VcpuPlan {
  readonly kvm: Kvm;
  readonly vm: KvmVm;
  readonly backend: Backend;
  readonly pager: Pager;
  readonly share: Share;
  readonly index: number;
}

async function startVcpu({ kvm, vm, backend, pager, share, index }: VcpuPlan): Promise<bigint> {
  using vcpu = vm.createVcpu(index);
  restoreVcpu(vcpu, index, share);
  const data: VcpuData = {
    role: 'vcpu',
    descriptor: duplicate(vcpu.fd),
    run_bytes: kvm.run_bytes,
    exitHandlerToken: isKvm(backend) ? backend.exitHandlerToken(index) : undefined,
  };
  const worker = new Worker(new URL(import.meta.url), { workerData: data });
  const sum = new Promise<bigint>((resolve, reject) => {
    worker.on('error', reject);
    worker.on('message', (message: VcpuReport) => {
      if (message.kind === 'started') void pager.nameThread(message.thread, 'vcpu', index);
      else if (message.kind === 'failed') reject(new Error(`vCPU ${index}: ${message.why}`));
      else {
        console.log(`  vCPU ${index}: ${message.elapsed_ms.toFixed(0)} ms, ${message.exits} exits`);
        resolve(message.sum);
      }
    });
  });
  const ended = once(worker, 'exit');
  const result = await sum;
  await ended;
  return result;
}

/** The guest's own sums, what it wrote into each page, and the counter that all vCPUs added to. */
async function check(pager: Pager, shares: readonly Share[], sums: readonly bigint[]): Promise<void> {
  const memory = pager.memory!;
  let total = 0n;
  for (const [index, { start, pages }] of shares.entries()) {
    const expected = expectedSum(start, pages);
    const last = await memory.read(gpa(start + (pages - 1) * PAGE + 8), 8);
    expectEqual(`the sum of vCPU ${index}`, sums[index]!, expected);
    expectEqual(`what vCPU ${index} wrote last`, new DataView(last.buffer).getBigUint64(0, true), expected);
    total += expected;
  }
  const counter = await memory.read(gpa(GUEST.counter), 8);
  expectEqual('the shared counter', new DataView(counter.buffer).getBigUint64(0, true), total);
  console.log('  the guest computed what it had to');
}

function expectEqual(what: string, got: bigint, expected: bigint): void {
  if (got !== expected) throw new Error(`${what} is ${got}, not ${expected}`);
}

function report(pager: Pager, backend: Backend, dataPages: number): void {
  const { vcpuFaults, kernelFaults, unattributedFaults, fetches, fetched_bytes, latency } =
    pager.statistics();
  console.log(
    `  faults: vCPU ${vcpuFaults}, KVM ${kernelFaults}, other ${unattributedFaults}; ${fetches} fetches, ${fetched_bytes >> 20} MiB for ${dataPages} data pages`,
  );
  console.log(
    `  from fault to page, in the resolver: median ${(latency.p50_ns / 1000).toFixed(0)} µs, 99 % ${(latency.p99_ns / 1000).toFixed(0)} µs`,
  );
  if (!isKvm(backend)) return;
  const { updates, slots, paused_ns, longestPause_ns } = backend.memslotUpdates;
  const milliseconds = (ns: number) => (ns / 1e6).toFixed(1);
  console.log(
    `  memslots: ${updates} updates of ${slots} slots; vCPUs paused for ${milliseconds(paused_ns)} ms in all, ${milliseconds(longestPause_ns)} ms at most`,
  );
}

if (!isMainThread) {
  const data = workerData as Partial<VcpuData> | undefined; // a resolver's thread imports this for its source
  if (data?.role === 'vcpu') runVcpu(data as VcpuData);
} else {
  const [name = 'composite', megabytes = '8', vcpus = '2', kibibytes = '64'] = process.argv.slice(2);
  if (!NAMES.includes(name as Name)) {
    console.error(`no backend ${name}: one of ${NAMES.join(', ')}`);
    process.exit(2);
  }
  await main(name as Name, Number(megabytes), Number(vcpus), Number(kibibytes) * 1024);
}
