import { type ChildProcess, execFileSync, fork } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, type TestContext } from 'vitest';
import { type Backend } from '../../../src/api/index.js';
import { composite } from '../../../src/backends/composite/index.js';
import { guestMemfd } from '../../../src/backends/guest-memfd/index.js';
import { kvmExit } from '../../../src/backends/kvm-exit/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';

const LONG = process.env['DEMAND_PAGING_LONG'] === '1';

/** One call that is refused: the `nth` of its kind, or every one for 0. */
interface Refusal {
  readonly name: string;
  /** Request of an ioctl, number of a system call. */
  readonly key: number;
  readonly nth: number;
  readonly errno: number;
}

interface Failure {
  readonly what: string;
  readonly chain: readonly { name: string; code?: string; syscall?: string; message: string }[];
}

interface Life {
  readonly open: boolean;
  readonly refused: number;
  readonly failures: readonly Failure[];
  readonly wrong: readonly string[];
  readonly left: Readonly<Record<'mappings' | 'fds' | 'threads', number>>;
  readonly calls: readonly { readonly name: string; readonly key: number; readonly count: number }[];
}

const { EAGAIN, EMFILE, ENOMEM, EPERM } = constants.errno;
const GIVES_DESCRIPTOR = [
  'accept4',
  'dup3',
  'eventfd',
  'fcntl',
  'memfd_create',
  'open',
  'pipe2',
  'socketpair',
];
const GIVES_MEMORY = ['mmap', 'mremap'];
function errnoFor(name: string): number {
  if (name === 'pthread_create') return EAGAIN;
  return GIVES_DESCRIPTOR.includes(name) ? EMFILE : GIVES_MEMORY.includes(name) ? ENOMEM : EPERM;
}

const folder = mkdtempSync(join(tmpdir(), 'demand-paging-refused-'));
const shim = join(folder, 'refuse.so');
const fixture = (name: string): string => new URL(`./fixtures/${name}`, import.meta.url).pathname;
const COMPILER = 'cc';
let lacksCompiler: string | undefined;

beforeAll(() => {
  try {
    execFileSync(COMPILER, [
      '-O1',
      '-shared',
      '-fPIC',
      '-fno-builtin',
      '-o',
      shim,
      fixture('refuse.c'),
      '-ldl',
      '-lpthread',
    ]);
  } catch (error) {
    lacksCompiler = `no C compiler: ${(error as Error).message}`;
  }
});

afterAll(() => rmSync(folder, { recursive: true }));

/** A process that lives one pager's life after another. One that hangs or ends says so. */
class Sweeper {
  readonly #child: ChildProcess;
  static async start(): Promise<Sweeper> {
    const sweeper = new Sweeper();
    await sweeper.#answer();
    return sweeper;
  }
  static replace(sweeper: Sweeper): Promise<Sweeper> {
    sweeper.stop();
    return Sweeper.start();
  }
  private constructor() {
    this.#child = fork(fixture('sweep.mjs'), { env: { ...process.env, LD_PRELOAD: shim } });
  }
  #answer(): Promise<Life | string> {
    return new Promise((resolve) => {
      const bound = setTimeout(() => this.#child.kill('SIGKILL'), 60_000);
      const end = (status: number | null, signal: string | null): void => {
        clearTimeout(bound);
        resolve(`the process ended: ${status ?? signal}`);
      };
      this.#child.once('exit', end);
      this.#child.once('message', (life: Life) => {
        clearTimeout(bound);
        this.#child.off('exit', end);
        resolve(life);
      });
    });
  }
  live(name: string, asynchronous: boolean, refusal?: Refusal): Promise<Life | string> {
    const answer = this.#answer();
    this.#child.send({ name, asynchronous, refusal });
    return answer;
  }
  stop(): void {
    this.#child.kill('SIGKILL');
  }
}

/** What is not as it ought to be. */
function complaintsOf({ wrong, left, failures }: Life, { name }: Refusal): string[] {
  const complaints = [...wrong];
  // A descriptor or mapping that cannot be given back is left.
  if (name !== 'close' && name !== 'munmap')
    for (const [what, count] of Object.entries(left))
      if (count !== 0) complaints.push(`left: ${count} ${what}`);
  for (const { what, chain } of failures) {
    const [first] = chain;
    if (first!.name === 'errno') continue; // an accessor's, which was let go
    if (first!.name !== 'DemandPagingError') complaints.push(`${what}: ${first!.name}: ${first!.message}`);
    else if (chain.every(({ syscall }) => syscall === undefined))
      complaints.push(`${what}: names no system call: ${chain.map(({ message }) => message).join(' <- ')}`);
  }
  return complaints;
}

/** All calls of a kind; in the long run also the first ones and the last, each alone. */
const nthsOf = (count: number): readonly number[] =>
  LONG ? [...new Set([0, 1, 2, 3, count])].filter((nth) => nth <= count) : [0];

const uffd = (): Backend => userfaultfd();
const exits = (): Backend => kvmExit({ vm: 0, vcpus: 1 });
const both = (): Backend => composite({ vm: 0, vcpus: 1 });
/** Name, whether its source is asynchronous, and what says whether this host has it. */
const SUBJECTS: readonly (readonly [string, boolean, () => Backend])[] = [
  ['userfaultfd', false, uffd],
  ['userfaultfd by continue', false, () => userfaultfd({ install: 'continue' })],
  ['adopt', false, uffd],
  ['kvm-exit', false, exits],
  ['guest-memfd', false, () => guestMemfd({ vm: 0, vcpus: 1 })],
];
const LONG_SUBJECTS: typeof SUBJECTS = [
  ['userfaultfd', true, uffd],
  ['userfaultfd over shmem', false, uffd],
  ['userfaultfd by continue', true, () => userfaultfd({ install: 'continue' })],
  ['userfaultfd by move', false, uffd],
  ['userfaultfd with write protection', false, uffd],
  ['userfaultfd for user mode only', false, uffd],
  ['adopt', true, uffd],
  ['kvm-exit', true, exits],
  ['kvm-exit over shmem', false, exits],
  ['memslot-hole', false, exits],
  ['composite', false, both],
  ['composite over shmem', false, both],
];

function need(context: TestContext, backend: Backend): void {
  if (lacksCompiler !== undefined) context.skip(lacksCompiler);
  if (!existsSync('/proc/self/fd')) context.skip('no /proc to see descriptors and threads in');
  const lacking = backend.probe().list.find(({ met }) => !met);
  if (lacking) context.skip(`${lacking.what}: ${lacking.found}`);
}

describe.each(LONG ? [...SUBJECTS, ...LONG_SUBJECTS] : SUBJECTS)(
  '%s, with an asynchronous source: %s; a call that is refused at any step',
  (name, asynchronous, backend) => {
    test(
      'is named by an error, or does no harm: nothing is left, nothing hangs, and no byte is wrong',
      { timeout: 900_000 },
      async (context) => {
        need(context, backend());
        let sweeper = await Sweeper.start();
        const complaints: string[] = [];
        let refusals = 0;
        try {
          const whole = await sweeper.live(name, asynchronous);
          if (typeof whole === 'string') throw new Error(whole);
          expect(whole).toMatchObject({
            open: true,
            failures: [],
            wrong: [],
            left: { mappings: 0, fds: 0, threads: 0 },
          });
          for (const { name: call, key, count } of whole.calls) {
            for (const nth of nthsOf(count)) {
              const refusal = { name: call, key, nth, errno: errnoFor(call) };
              const what = `${call} 0x${key.toString(16)}, ${nth === 0 ? 'every call' : `call ${nth}`}`;
              const life = await sweeper.live(name, asynchronous, refusal);
              if (typeof life === 'string') {
                complaints.push(`${what}: ${life}`);
                sweeper = await Sweeper.start();
              } else {
                refusals += life.refused > 0 ? 1 : 0;
                complaints.push(...complaintsOf(life, refusal).map((each) => `${what}: ${each}`));
                if (life.wrong.length > 0) sweeper = await Sweeper.replace(sweeper); // an access may still wait
              }
            }
          }
        } finally {
          sweeper.stop();
        }
        expect(complaints).toEqual([]);
        expect(refusals).toBeGreaterThan(10);
      },
    );
  },
);
