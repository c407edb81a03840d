import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, type TestContext } from 'vitest';
import { hva, openPager, type Pager, type PagerPolicy } from '../../../src/api/index.js';
import { adopt } from '../../../src/backends/userfaultfd/index.js';
import { acceptFrom, listenAt, Poller, raw, receiveWithDescriptors } from '../../../src/linux/index.js';
import { DEADLINE_MS, PAGE, region } from '../userfaultfd/scene.js';

const script = new URL('../userfaultfd/fixtures/foreign.py', import.meta.url).pathname;

/** Pages of the process's memory that the pager's layout names. */
export const FOREIGN_PAGES = 16;

/** Another process, whose memory a pager serves. What it obeys is in fixtures/foreign.py. */
export class ForeignProcess implements AsyncDisposable {
  readonly #answers: AsyncIterator<string>;

  private constructor(
    readonly child: ChildProcess,
    readonly pager: Pager,
    readonly address: number,
  ) {
    this.#answers = createInterface(child.stdout!)[Symbol.asyncIterator]();
  }

  static async start(context: TestContext, policy: Partial<PagerPolicy> = {}): Promise<ForeignProcess> {
    if (spawnSync('python3', ['--version']).status !== 0)
      context.skip('no python3 here to be the foreign process');
    const folder = mkdtempSync(join(tmpdir(), 'foreign-'));
    const path = join(folder, 'socket');
    const listener = listenAt(path);
    const child = spawn('python3', [script, path, 'anonymous', 'keep'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    comes(listener);
    const socket = acceptFrom(listener);
    comes(socket);
    const { bytes, fds } = receiveWithDescriptors(socket);
    raw.close(socket);
    raw.close(listener);
    rmSync(folder, { recursive: true });
    const [address] = Buffer.from(bytes).toString().split(' ').map(Number) as [number];
    const pager = await openPager({
      backend: adopt({ uffd: fds[0]!, pid: child.pid, events: ['fork', 'remap', 'remove', 'unmap'] }),
      regions: [region(FOREIGN_PAGES, 'anonymous', { hva: hva(address) })],
      source: {
        module: new URL('./fixtures/source.mjs', import.meta.url).href,
        export: 'open',
        options: { length: 4 * FOREIGN_PAGES * PAGE },
      },
      policy: { faultAroundPages: 1, ...policy },
    });
    return new ForeignProcess(child, pager, address);
  }

  /** One line to the process, and its answer. */
  async ask(line: string): Promise<number> {
    this.child.stdin!.write(`${line}\n`);
    return Number((await this.#answers.next()).value);
  }

  /** What the process reads at an address, through its kernel: a byte, or 200 + errno. */
  read(address: number): Promise<number> {
    return this.ask(`x ${address}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = this.child.exitCode !== null || this.child.signalCode !== null;
    const gone = exited ? undefined : new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGKILL');
    await gone;
    await this.pager.close();
  }
}

/** Fails where nothing comes: what is waited for next has no time-out of its own. */
function comes(fd: number): void {
  using poller = new Poller([fd]);
  expect(poller.wait(DEADLINE_MS), 'the other process is heard of').toBe(1);
}
