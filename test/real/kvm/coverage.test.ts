import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, type TestContext } from 'vitest';
import {
  type AccessSite,
  type Attachment,
  type Effect,
  FaultBatch,
  MemoryLayout,
  type MemoryKind,
  ResolutionBatch,
} from '../../../src/api/index.js';
import { type ExitPort, type ExitPortToken, type KvmBackend, openExitPort } from '../../../src/kvm/index.js';
import { hugePagePool, type KvmVcpu, reserveHugePages } from '../../../src/linux/index.js';
import {
  backendOf,
  CODE,
  type Doing,
  ENTRY,
  type Flavour,
  imageOf,
  LOW,
  PAGE,
  PAGED,
  Rig,
  type RunResult,
  writeTables,
} from './rig.js';

const HUGE = 0x20_0000;
/** Room for page tables in one page of a region. */
const SMALL = 0x4000;
/** Each site has a page of its own: this many pages of the region, from its first. */
const SITE_PAGE = {
  walk: 0,
  load: 1,
  store: 2,
  atomic: 3,
  fetch: 4,
  copy: 5,
  mapping: 6,
  stored: 7,
  syscall: 8,
  other: 9,
};
const SITES = 10;
const VCPUS = 8;
const NOBODY = 0xffff_ffff;
const run = promisify(execFile);

/** What was seen of one access. */
interface Seen {
  readonly effect: Effect;
  /** Where the first fault said it was. */
  readonly page: number | undefined;
}

/** A backend attached to a region, with its port in this thread, so that every fault is seen before it is answered. */
class Lab implements AsyncDisposable {
  readonly rig: Rig;
  readonly backend: KvmBackend;
  readonly attachment: Attachment;
  readonly port: ExitPort;
  readonly pageSize: number;
  readonly #image: Uint8Array;
  #seats = 0;

  private constructor(rig: Rig, backend: KvmBackend, attachment: Attachment, pageSize: number) {
    this.rig = rig;
    this.backend = backend;
    this.attachment = attachment;
    this.pageSize = pageSize;
    const place = attachment.shards[0]!.port;
    if (place.where !== 'worker') throw new TypeError('the port opens in workers');
    this.port = openExitPort(place.token as ExitPortToken);
    this.#image = new Uint8Array(imageOf((SITES * pageSize) / PAGE));
    this.#image.set(CODE.subarray(ENTRY.done), SITE_PAGE.fetch * pageSize);
    writeTables(this.#image, SITE_PAGE.copy * pageSize, Number(this.gpaOf(SITE_PAGE.copy)));
    const view = new DataView(this.#image.buffer);
    for (const page of Object.values(SITE_PAGE)) {
      if (page !== SITE_PAGE.walk && page !== SITE_PAGE.copy && page !== SITE_PAGE.fetch)
        view.setBigUint64(page * pageSize, this.gpaOf(page), true);
    }
  }

  static async open(context: TestContext, { flavour, memory, pageSize, strategy }: Case): Promise<Lab> {
    const rig = Rig.open(context);
    const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: VCPUS, strategy });
    const attachment = await backend.attach(
      new MemoryLayout([rig.region((SITES * pageSize) / PAGE, pageSize, memory)]),
    );
    return new Lab(rig, backend, attachment, pageSize);
  }

  gpaOf(page: number): bigint {
    return BigInt(PAGED + page * this.pageSize);
  }

  hvaOf(page: number): number {
    return Number(this.attachment.layout.hvaOf(page));
  }

  /** Answers every fault with the image until the access is through. */
  async serve<T>(
    doing: Doing<T>,
  ): Promise<{ first: 'exits' | 'blocks' | undefined; page: number | undefined; value: T }> {
    let over = false;
    let first: 'exits' | 'blocks' | undefined;
    let page: number | undefined;
    void doing.result.finally(() => (over = true)).catch(() => {});
    const batch = new FaultBatch(16);
    let ready: Promise<void> | undefined;
    while (!over) {
      batch.clear();
      if (this.port.take(batch, 'none', 0) > 0) {
        first ??= batch.vcpu[0] === NOBODY ? 'blocks' : 'exits';
        page ??= batch.page[0]!;
        for (let row = 0; row < batch.count; row++) this.#bring(batch.page[row]!);
      } else {
        ready ??= this.port.ready().finally(() => (ready = undefined));
        await Promise.race([ready, doing.result.catch(() => {})]);
      }
    }
    return { first, page, value: await doing.result };
  }

  #bring(page: number): void {
    this.port.staging.set(this.#image.subarray(page * this.pageSize, (page + 1) * this.pageSize));
    const batch = new ResolutionBatch(1);
    batch.push({ verb: 'copy', pages: { first: page, count: 1 }, from: 0 });
    this.port.resolve(batch);
    expect(['installed', 'already-present']).toContain(batch.outcomeOf(0));
  }

  // ── one access each ──

  async vcpu(
    page: number,
    entry: number,
    expected: Partial<RunResult>,
    from?: { code: number; tables: number },
  ): Promise<Seen> {
    const vcpu = this.rig.vcpu(entry, { rdi: this.gpaOf(page), rsi: 1n }, from);
    const {
      first,
      page: at,
      value,
    } = await this.serve(await this.rig.run(vcpu, this.backend.gate(this.#seats++)));
    if (value.exit.kind === 'io') {
      if (!first) return { effect: 'unmediated', page: at };
      expect(value).toMatchObject(expected);
      return { effect: first, page: at };
    }
    // The guest cannot go on: it was given a fault it did not make, or KVM gave it up.
    return { effect: value.exit.kind === 'shutdown' ? 'injects' : 'errors', page: at };
  }

  /** KVM walks page tables that are missing, for an ioctl. */
  async kernel(page: number): Promise<Seen> {
    const vcpu: KvmVcpu = this.rig.vcpu(ENTRY.done, {}, { code: LOW.code, tables: Number(this.gpaOf(page)) });
    const doing = await this.rig.start<{ valid: boolean; gpa: bigint }>(
      { kind: 'translate', linear: 0x1234n },
      vcpu,
      this.backend.gate(this.#seats++),
    );
    const { first, page: at, value } = await this.serve(doing);
    return { effect: first ?? 'errors', page: value.valid === (first !== undefined) ? at : -1 };
  }

  async thread(page: number, deed: 'load' | 'store' | 'syscall'): Promise<Seen> {
    const doing = await this.rig.start<{ value?: bigint }>({ kind: deed, address: this.hvaOf(page) });
    const { first, page: at, value } = await this.serve(doing);
    if (first && deed !== 'store')
      expect(BigInt.asUintN(8, value.value!)).toBe(BigInt.asUintN(8, this.gpaOf(page)));
    return { effect: first ?? 'unmediated', page: at };
  }

  async process(page: number): Promise<Seen> {
    const script = fileURLToPath(new URL('./fixtures/reader.mjs', import.meta.url));
    const result = run(process.execPath, [script, String(process.pid), String(this.hvaOf(page))]).then(
      ({ stdout }) => stdout,
    );
    const { first, page: at, value } = await this.serve({ thread: 0, result });
    expect(value).toBe(String(first ? this.gpaOf(page) : 0n));
    return { effect: first ?? 'unmediated', page: at };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.port.close();
    await this.attachment.close();
    this.rig[Symbol.dispose]();
  }
}

interface Case {
  readonly flavour: Flavour;
  readonly memory: MemoryKind;
  readonly pageSize: number;
  readonly strategy?: 'memslot-hole';
}

const CASES: readonly Case[] = [
  { flavour: 'kvm-exit', memory: 'anonymous', pageSize: SMALL },
  { flavour: 'kvm-exit', memory: 'shmem', pageSize: SMALL },
  { flavour: 'kvm-exit', memory: 'hugetlb', pageSize: HUGE },
  { flavour: 'kvm-exit', memory: 'anonymous', pageSize: SMALL, strategy: 'memslot-hole' },
  { flavour: 'composite', memory: 'anonymous', pageSize: SMALL },
  { flavour: 'composite', memory: 'shmem', pageSize: SMALL },
  { flavour: 'composite', memory: 'hugetlb', pageSize: HUGE },
  { flavour: 'guest-memfd', memory: 'guest-memfd', pageSize: SMALL },
];

let reserved: ReturnType<typeof reserveHugePages> | undefined;
beforeAll(() => {
  if (process.getuid?.() === 0 && hugePagePool()) reserved = reserveHugePages(SITES + 2);
});
afterAll(() => reserved?.[Symbol.dispose]());

describe("coverage-is-true: a backend's manifest is what this kernel does", () => {
  test.for(CASES)('$flavour $strategy, $memory memory, pages of $pageSize', async (each, context) => {
    if (each.memory === 'hugetlb' && !reserved) context.skip('no huge pages can be reserved here');
    await using lab = await Lab.open(context, each);
    const at = SITE_PAGE;
    const low = { code: LOW.code, tables: Number(lab.gpaOf(at.walk)) };
    const seen: Partial<Record<AccessSite, Seen>> = {
      'vcpu-load': await lab.vcpu(at.load, ENTRY.load, { rax: lab.gpaOf(at.load) }),
      'vcpu-store': await lab.vcpu(at.store, ENTRY.store, {}),
      'vcpu-atomic': await lab.vcpu(at.atomic, ENTRY.atomic, { rsi: lab.gpaOf(at.atomic) }),
      'vcpu-fetch': await lab.vcpu(at.fetch, ENTRY.jump, {}),
      'vcpu-walk': await lab.vcpu(at.walk, ENTRY.done, {}, low),
      'kernel-copy': await lab.kernel(at.copy),
      'vmm-load': await lab.thread(at.mapping, 'load'),
      'vmm-store': await lab.thread(at.stored, 'store'),
      'vmm-syscall': await lab.thread(at.syscall, 'syscall'),
      'external-vm-readv': await lab.process(at.other),
    };
    const measured = Object.fromEntries(Object.entries(seen).map(([site, { effect }]) => [site, effect]));
    const rows = lab.attachment.coverage.filter(({ site }) => site in measured);
    // KVM does a locked access to a hole as a read and a write, so that another vCPU's can come between: one
    // access alone looks right, and is declared as what it is.
    if (each.strategy === 'memslot-hole') {
      expect(measured['vcpu-atomic']).toBe('exits');
      measured['vcpu-atomic'] = 'unmediated';
    }
    expect(measured).toEqual(Object.fromEntries(rows.map(({ site, effect }) => [site, effect])));
    for (const { site, address, granuleBytes } of rows) {
      if (site === 'vcpu-atomic' && each.strategy === 'memslot-hole') continue;
      const page = seen[site]!.page;
      expect(address === 'exact', site).toBe(page !== undefined);
      expect(granuleBytes).toBe(each.pageSize);
    }
  });
});
