import { type ChildProcess, fork, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  fileOffset,
  gpa,
  hva,
  openPager,
  type Pager,
  type PageStatesSnapshot,
  type RegionSpec,
} from 'demand-paging';
import { adopt } from 'demand-paging/backends/userfaultfd';
import { acceptFrom, listenAt, Poller, raw, receiveWithDescriptors } from 'demand-paging/linux';
import { memory } from 'demand-paging/sources';
import { imageOf, PAGE, PAGES } from './image.js';
import { type SliceAccount, SliceFailure, wrong } from './slice-account.js';

const ROOT = join(createRequire(import.meta.url).resolve('demand-paging/package.json'), '..');
const FOLDER = join(ROOT, '.cache', 'soak');
const PROGRAM = join(FOLDER, 'foreign-vmm');
const ACCESSORS = 3;
const MOST_VMM_MS = 3000;
const MOST_HANDLER_MS = 1500;
/** In a handler: where its userfaultfd is. */
const UFFD = 4;
const TELL_EVERY_MS = 100;

/** Compiles the VMM; what hinders it, or undefined. */
export function compileForeignVmm(): string | undefined {
  mkdirSync(FOLDER, { recursive: true });
  const source = join(ROOT, 'test', 'soak', 'fixtures', 'foreign-vmm.c');
  const made = `${PROGRAM}.${process.pid}`;
  const { error, status, stderr } = spawnSync('gcc', ['-O2', '-pthread', '-o', made, source], {
    encoding: 'utf8',
  });
  if (error ?? status !== 0) return `gcc: ${error?.message ?? stderr}`;
  renameSync(made, PROGRAM);
  return undefined;
}

/** A VMM that has started and has handed its userfaultfd over. */
class ForeignVmm {
  readonly #said: Buffer[] = [];
  readonly ended: Promise<void>;

  private constructor(
    readonly child: ChildProcess,
    readonly connection: number,
    readonly uffd: number,
    readonly region: RegionSpec,
  ) {
    child.stderr!.on('data', (bytes: Buffer) => this.#said.push(bytes));
    this.ended = new Promise((resolve) => child.once('close', () => resolve()));
  }

  /** `strict`: what was discarded is zeros also after a handler was started anew. */
  static async start(account: SliceAccount, strict: boolean): Promise<ForeignVmm> {
    const folder = mkdtempSync(join(tmpdir(), 'demand-paging-soak-'));
    const path = join(folder, 'socket');
    const listener = listenAt(path);
    const given = [account.task.seed, PAGES, ACCESSORS, Number(strict), account.task.hang_ms / 1000];
    const child = spawn(PROGRAM, [path, ...given.map(String)], { stdio: ['ignore', 'ignore', 'pipe'] });
    try {
      await account.during('a VMM connects', readable(listener));
      const connection = acceptFrom(listener);
      await account.during('a VMM hands its userfaultfd over', readable(connection));
      const { bytes, fds } = receiveWithDescriptors(connection);
      const [place] = JSON.parse(Buffer.from(bytes).toString()) as [
        { readonly base_host_virt_addr: number; readonly size: number },
      ];
      return new ForeignVmm(child, connection, fds[0]!, {
        gpa: gpa(0),
        hva: hva(place.base_host_virt_addr),
        length: BigInt(place.size),
        sourceOffset: fileOffset(0),
        memory: 'anonymous',
        pageSize: PAGE,
      });
    } finally {
      raw.close(listener);
      rmSync(folder, { recursive: true });
    }
  }

  /** Rejects when it ends by itself: with what it has found. */
  async endsEarly(): Promise<never> {
    await this.ended;
    const { exitCode, signalCode } = this.child;
    const what = `the VMM ended with ${exitCode ?? signalCode}: ${Buffer.concat(this.#said).toString().trim()}`;
    if (exitCode === 9) throw wrong(what);
    throw new SliceFailure({ kind: exitCode === 6 ? 'hang' : 'error', what });
  }

  /** Says that another handler begins, before it does. */
  async announceHandler(account: SliceAccount): Promise<void> {
    writeSync(this.connection, new Uint8Array(1));
    await account.during('the VMM hears of a new handler', readable(this.connection));
    readSync(this.connection, new Uint8Array(1));
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.ended;
    raw.close(this.connection);
  }
}

async function readable(fd: number): Promise<void> {
  using poller = new Poller([fd]);
  while (poller.wait(0) === 0) await pause(1);
}

const pause = (time_ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, time_ms));

const openAdopted = (
  uffd: number,
  pid: number,
  region: RegionSpec,
  image: SharedArrayBuffer,
  states?: PageStatesSnapshot,
): Promise<Pager> =>
  openPager({
    backend: adopt({ uffd, pid }),
    regions: [region],
    source: memory(image),
    needs: [],
    policy: { faultAroundPages: 1 },
    ...(states && { states }),
  });

/** VMMs that are killed while their faults are served, one after the other. */
export async function soakKilledVmms(account: SliceAccount): Promise<void> {
  const image = imageOf(account.task.seed);
  while (!account.isOver()) {
    const vmm = await ForeignVmm.start(account, true);
    const pager = await account.during('openPager', openAdopted(vmm.uffd, vmm.child.pid!, vmm.region, image));
    account.statistics = () => pager.statistics();
    account.faultsNow = () => pager.statistics().missingFaults;
    const stopped = new Promise<string>((resolve) => pager.once('stopped', ({ code }) => resolve(code)));
    const early = vmm.endsEarly();
    early.catch(() => {});
    if (account.below(2) === 0) pager.prefetch().catch(() => {}); // which the kill may interrupt
    await Promise.race([pause(account.below(MOST_VMM_MS)), early]);
    await account.during('a VMM is killed', vmm.kill());
    account.kills++;
    const code = await account.during('the pager stops', stopped);
    if (code !== 'MEMORY_GONE')
      throw new SliceFailure({
        kind: 'error',
        what: `the VMM was killed, and the pager stopped with ${code}`,
      });
    await account.during('close', pager.close({ missing: 'leave' }));
    account.closed();
  }
}

interface HandlerTask {
  readonly region: RegionSpec;
  readonly pid: number;
  readonly seed: number;
  readonly states: PageStatesSnapshot | undefined;
}

type HandlerMessage =
  | { readonly kind: 'open' }
  | { readonly kind: 'served'; readonly statistics: ReturnType<Pager['statistics']> }
  | { readonly kind: 'closed'; readonly states: PageStatesSnapshot };

/** A handler in a process of its own: serves until it is told to end, and then hands its states over. */
export function runHandler(): void {
  const tell = (message: HandlerMessage): void => void process.send?.(message);
  process.once('disconnect', () => process.exit());
  process.once('message', (task: HandlerTask) => void serve(task, tell));
}

async function serve(
  { region, pid, seed, states }: HandlerTask,
  tell: (message: HandlerMessage) => void,
): Promise<void> {
  const pager = await openAdopted(UFFD, pid, region, imageOf(seed), states);
  tell({ kind: 'open' });
  const timer = setInterval(() => tell({ kind: 'served', statistics: pager.statistics() }), TELL_EVERY_MS);
  process.once('message', () => {
    void pager.close({ missing: 'leave' }).then(() => {
      clearInterval(timer);
      tell({ kind: 'served', statistics: pager.statistics() });
      tell({ kind: 'closed', states: pager.snapshot() });
      process.disconnect();
    });
  });
}

/**
 * A VMM goes on while its handlers end and are started anew. By turns they are killed, and take what they
 * know along; or told to end, and hand their states over: then what was discarded is zeros for every one.
 */
export async function soakKilledHandlers(account: SliceAccount): Promise<void> {
  for (let strict = account.below(2) === 0; !account.isOver(); strict = !strict) {
    const vmm = await ForeignVmm.start(account, strict);
    const early = vmm.endsEarly();
    early.catch(() => {});
    let states: PageStatesSnapshot | undefined;
    for (let most = 2 + account.below(6); most > 0 && !account.isOver(); most--) {
      const handler = await Handler.start(vmm, account, states);
      await Promise.race([pause(account.below(MOST_HANDLER_MS)), early]);
      states = strict ? await Promise.race([handler.end(), early]) : await handler.kill();
      account.closed();
      await Promise.race([vmm.announceHandler(account), early]);
    }
    raw.close(vmm.uffd);
    await account.during('a VMM is killed', vmm.kill());
    account.kills++;
  }
}

class Handler {
  readonly #ended: Promise<void>;
  #heard: (message: HandlerMessage) => void = () => {};

  private constructor(
    private readonly child: ChildProcess,
    private readonly account: SliceAccount,
  ) {
    this.#ended = new Promise((resolve) => child.once('close', () => resolve()));
    child.on('message', (message: HandlerMessage) => {
      if (message.kind !== 'served') return this.#heard(message);
      account.statistics = () => message.statistics;
      account.faultsNow = () => message.statistics.missingFaults;
    });
  }

  static async start(
    { uffd, region, child: { pid } }: ForeignVmm,
    account: SliceAccount,
    states: PageStatesSnapshot | undefined,
  ): Promise<Handler> {
    const child = fork(fileURLToPath(import.meta.url), ['handler'], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', uffd],
      serialization: 'advanced',
    });
    const handler = new Handler(child, account);
    const opened = handler.#answer('open');
    child.send({ region, pid: pid!, seed: account.task.seed, states } satisfies HandlerTask);
    await account.during('a handler opens', opened);
    return handler;
  }

  async end(): Promise<PageStatesSnapshot> {
    const closed = this.#answer('closed');
    this.child.send('end');
    const { states } = await this.account.during('a handler ends and hands its states over', closed);
    await this.account.during('a handler ends', this.#ended);
    return states;
  }

  async kill(): Promise<undefined> {
    this.child.kill('SIGKILL');
    await this.account.during('a handler is killed', this.#ended);
    this.account.kills++;
    return undefined;
  }

  #answer<Kind extends HandlerMessage['kind']>(kind: Kind): Promise<Extract<HandlerMessage, { kind: Kind }>> {
    return new Promise((resolve, reject) => {
      this.#heard = (message) => {
        if (message.kind === kind) resolve(message as Extract<HandlerMessage, { kind: Kind }>);
      };
      void this.#ended.then(() =>
        reject(
          new SliceFailure({
            kind: 'error',
            what: `a handler ended with ${this.child.exitCode ?? this.child.signalCode}`,
          }),
        ),
      );
    });
  }
}
