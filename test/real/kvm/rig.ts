import { Worker } from 'node:worker_threads';
import { type TestContext } from 'vitest';
import {
  type Backend,
  fileOffset,
  gpa,
  type MemoryKind,
  openPager,
  type Pager,
  type PagerOptions,
  type RegionSpec,
} from '../../../src/api/index.js';
import { composite } from '../../../src/backends/composite/index.js';
import { guestMemfd } from '../../../src/backends/guest-memfd/index.js';
import { kvmExit } from '../../../src/backends/kvm-exit/index.js';
import { type KvmBackend, type KvmOptions, type VcpuExitHandlerToken } from '../../../src/kvm/index.js';
import {
  duplicate,
  Kvm,
  type KvmExit,
  type KvmVcpu,
  type KvmVm,
  mapMemory,
  raw,
  X86_LONG_MODE_CPUID,
  X86_USER_FLAGS,
  x86UserMode,
  type X86Registers,
} from '../../../src/linux/index.js';

export const PAGE = 4096;
const KVM_SET_TSS_ADDR = 0xae47;

/** Memory of the VMM's own, always there, from guest-physical 0. */
export const LOW = {
  tables: 0x1000,
  code: 0x1_0000,
  stacks: 0x2_0000,
  flag: 0x4_0000,
  counter: 0x4_1000,
  bytes: 0x20_0000,
};
/**
 * The paged region, and what its source holds at which page; everywhere else a page's first word is its
 * address.
 */
export const PAGED = 0x20_0000;
export const PAGED_PAGE = { tables: 0, code: 3, stacks: 4, counter: 6, data: 8 };

/** Entry points of the code below. */
export const ENTRY = {
  hammer: 0x00,
  scan: 0x30,
  load: 0x5a,
  store: 0x5f,
  atomic: 0x64,
  jump: 0x6b,
  done: 0x6d,
};
export const PORT = { done: 0x80, bad: 0x81 };
/*
 * hammer: mov rbx,rdi; mov rcx,rsi; next: call check; add rbx,4096; dec rcx; jnz next; inc r9;
 *         cmp byte [rdx],0; jz hammer; out 0x80,al
 * check:  mov rax,[rbx]; cmp rax,rbx; jne bad; lock inc qword [r10]; ret; bad: out 0x81,al
 * scan:   xor eax,eax; xor r9,r9; s1: call sc; add rdi,4096; inc r9; dec rsi; jnz s1; lock add [r10],rax; out 0x80,al
 * sc:     mov rbx,[rdi]; add rax,rbx; mov [rdi+8],rax; ret
 * load:   mov rax,[rdi]; out 0x80,al     store: mov [rdi],rsi; out 0x80,al
 * atomic: lock xadd [rdi],rsi; out 0x80,al     jump: jmp rdi     done: out 0x80,al
 */
export const CODE = Buffer.from(
  '4889fb4889f1e8160000004881c30010000048ffc975ef49ffc1803a0074e1e680' +
    '488b034839d87505f049ff02c3e681' +
    '31c04d31c9e8150000004881c70010000049ffc148ffce75ecf0490102e680' +
    '488b1f4801d848894708c3' +
    '488b07e680' +
    '488937e680' +
    'f0480fc137e680' +
    'ffe7' +
    'e680',
  'hex',
);

/** Identity mapping of the first GiB in 2 MiB pages, user-accessible; three pages from `at`. */
export function writeTables(bytes: Uint8Array, offset: number, at: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset);
  view.setBigUint64(0, BigInt(at + PAGE) | 7n, true);
  view.setBigUint64(PAGE, BigInt(at + 2 * PAGE) | 7n, true);
  for (let entry = 0; entry < 512; entry++)
    view.setBigUint64(2 * PAGE + entry * 8, (BigInt(entry) << 21n) | 0x87n, true);
}

/** The saved contents of `pages` pages of the paged region. */
export function imageOf(pages: number): SharedArrayBuffer {
  const image = new SharedArrayBuffer(pages * PAGE);
  const bytes = new Uint8Array(image);
  const view = new DataView(image);
  for (let page = PAGED_PAGE.data; page < pages; page++)
    view.setBigUint64(page * PAGE, BigInt(PAGED + page * PAGE), true);
  writeTables(bytes, 0, PAGED);
  bytes.set(CODE, PAGED_PAGE.code * PAGE);
  return image;
}

/** What became of a vCPU's run. */
export interface RunResult {
  readonly handled: string;
  readonly failure: string | undefined;
  readonly errno: number;
  readonly exit: KvmExit;
  readonly exits: number;
  readonly rax: bigint;
  readonly rsi: bigint;
  readonly r9: bigint;
  readonly rip: bigint;
}

/** A thread that does one thing, which may wait for a page. */
export interface Doing<T> {
  readonly thread: number;
  readonly result: Promise<T>;
  /** The thread is gone. */
  readonly ended: Promise<unknown>;
}

export type Flavour = 'kvm-exit' | 'composite' | 'guest-memfd';

export function backendOf(flavour: Flavour, options: KvmOptions): KvmBackend {
  switch (flavour) {
    case 'kvm-exit':
      return kvmExit(options);
    case 'composite':
      return composite(options);
    case 'guest-memfd':
      return guestMemfd(options);
  }
}

/** The kind of memory that a flavour takes, when the test does not say. */
export const memoryOf = (flavour: Flavour): MemoryKind =>
  flavour === 'guest-memfd' ? 'guest-memfd' : 'anonymous';

/** A VM with low memory of its own, at whose paged region a backend can be attached. */
export class Rig implements Disposable {
  readonly kvm: Kvm;
  readonly vm: KvmVm;
  readonly low = mapMemory({ kind: 'anonymous', length: LOW.bytes });
  readonly #vcpus: KvmVcpu[] = [];
  readonly #workers: Worker[] = [];

  private constructor(kvm: Kvm) {
    this.kvm = kvm;
    this.vm = kvm.createVm();
    raw.ioctl(this.vm.fd, KVM_SET_TSS_ADDR, 0xfffb_d000);
    const bytes = this.low.bytes();
    writeTables(bytes, LOW.tables, LOW.tables);
    bytes.set(CODE, LOW.code);
    this.vm.setSlot({ slot: 0, gpa: 0, length: LOW.bytes, userspace: this.low.address });
  }

  /** A rig, or a test skipped with what this host lacks. */
  static open(context: TestContext): Rig {
    if (process.arch !== 'x64') context.skip(`the guest's code is for x64, not ${process.arch}`);
    let kvm: Kvm;
    try {
      kvm = Kvm.open();
    } catch (error) {
      return context.skip((error as Error).message);
    }
    const rig = new Rig(kvm);
    if (rig.vm.sharesGuestMemfd) return rig;
    rig[Symbol.dispose]();
    return context.skip('this kernel has no guest_memfd that can be mapped');
  }

  region(pages: number, pageSize = PAGE, memory: MemoryKind = 'anonymous'): RegionSpec {
    return { gpa: gpa(PAGED), length: BigInt(pages * PAGE), sourceOffset: fileOffset(0), memory, pageSize };
  }

  /** A vCPU at an entry point of the low code, or of the paged one. Arguments go into registers. */
  vcpu(
    entry: number,
    registers: Partial<X86Registers> = {},
    from: { code: number; tables: number } = LOW,
  ): KvmVcpu {
    const index = this.#vcpus.length;
    const vcpu = this.vm.createVcpu(index);
    this.#vcpus.push(vcpu);
    vcpu.setCpuid(X86_LONG_MODE_CPUID);
    vcpu.setSpecialRegisters(x86UserMode(from.tables));
    vcpu.setRegisters({
      rip: BigInt(from.code + entry),
      rflags: X86_USER_FLAGS,
      rsp: BigInt(LOW.stacks + (index + 1) * PAGE),
      rdx: BigInt(LOW.flag),
      r10: BigInt(LOW.counter),
      ...registers,
    });
    return vcpu;
  }

  /** Runs a vCPU on a thread of its own until an exit that its handler does not handle. */
  run(vcpu: KvmVcpu, token: VcpuExitHandlerToken | undefined): Promise<Doing<RunResult>> {
    return this.start({ kind: 'run' }, vcpu, token);
  }

  /** Has a thread do something, with or without a vCPU. */
  async start<T>(
    deed: { kind: string; [key: string]: unknown },
    vcpu?: KvmVcpu,
    token?: VcpuExitHandlerToken,
  ): Promise<Doing<T>> {
    const descriptor = vcpu && duplicate(vcpu.fd);
    const worker = new Worker(new URL('./fixtures/vcpu.mjs', import.meta.url), {
      workerData: { descriptor, run_bytes: this.kvm.run_bytes, token, deed },
    });
    this.#workers.push(worker);
    // A thread that ends at once sends all its messages together: every listener is added now.
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    const said = (kind: string): Promise<{ thread: number; result: T }> =>
      new Promise((resolve, reject) => {
        worker.on('message', (message: { kind: string; thread: number; result: T }) => {
          if (message.kind === kind) resolve(message);
        });
        worker.once('error', reject);
      });
    const started = said('started');
    const result = said('ended').then((message) => message.result);
    result.catch(() => {}); // its awaiter receives the error
    return { thread: (await started).thread, result, ended };
  }

  /** Tells guests that hammer to come to an end. */
  stopGuests(): void {
    this.low.bytes()[LOW.flag] = 1;
  }

  word(address: number): bigint {
    const bytes = this.low.bytes();
    return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(address, true);
  }

  [Symbol.dispose](): void {
    this.stopGuests();
    for (const worker of this.#workers) void worker.terminate();
    for (const vcpu of this.#vcpus) vcpu.close();
    this.vm.close();
    this.kvm.close();
  }
}

/** A pager over an image in memory; `control` as the fixture says. */
export async function pagerOver(
  backend: Backend,
  regions: readonly RegionSpec[],
  image: SharedArrayBuffer,
  options: Partial<PagerOptions> = {},
): Promise<{ pager: Pager; control: Int32Array }> {
  const control = new SharedArrayBuffer(4);
  const module = new URL('./fixtures/image.mjs', import.meta.url).href;
  const pager = await openPager({
    backend,
    regions,
    source: { module, export: 'openImage', options: { image, control } },
    needs: ['vcpu'],
    ...options,
    policy: { faultAroundPages: 1, ...options.policy },
  });
  return { pager, control: new Int32Array(control) };
}
