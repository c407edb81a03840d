import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test, type TestContext } from 'vitest';
import { guestMemfd } from '../../../src/backends/guest-memfd/index.js';
import { skipWithoutUserfaultfd } from '../userfaultfd/scene.js';

skipWithoutUserfaultfd();

interface Life {
  readonly open: boolean;
  readonly failures: readonly {
    readonly what: string;
    readonly chain: readonly { readonly name: string; readonly code?: string; readonly syscall?: string }[];
  }[];
  readonly wrong: readonly string[];
  readonly left: Readonly<Record<string, number>>;
  readonly probed: { readonly met: boolean };
}

const { EAGAIN, ENOSYS, EPERM } = constants.errno;
const NOTHING = { mappings: 0, fds: 0, threads: 0 };
const run = promisify(execFile);

/** A life in a process of its own, which ends by itself. */
async function lifeOf(program: string, ...args: readonly string[]): Promise<Life> {
  const file = new URL(`./fixtures/${program}`, import.meta.url).pathname;
  const { stdout } = await run(process.execPath, [file, ...args], { timeout: 60_000 });
  return JSON.parse(stdout) as Life;
}

/** What opening says that it was refused: the system calls named, from the outermost error in. */
const refusalsOf = ({ failures }: Life): readonly (string | undefined)[] =>
  failures
    .filter(({ what }) => what === 'open')
    .flatMap(({ chain }) => chain)
    .map(({ name, syscall }) => (name === 'DemandPagingError' ? syscall : name));

const KVM_SUBJECTS = ['kvm-exit', 'guest-memfd', 'composite'];

function skipWithoutKvm(name: string, context: TestContext): void {
  if (!KVM_SUBJECTS.includes(name)) return;
  const { list } = guestMemfd({ vm: 0, vcpus: 1 }).probe();
  const lacking = list.find(({ met }) => !met);
  if (lacking) context.skip(`${lacking.what}: ${lacking.found}`);
}

const IOCTL = 16;
const ioctl = (request: number): object => ({ calls: [IOCTL], argument: { index: 1, values: [request] } });
const madvise = (advice: number): object => ({ calls: [28], argument: { index: 2, values: [advice] } });

/** System calls of x86-64 that opening, serving and closing a pager make, and that Node lives without. */
const REFUSED: readonly (readonly [string, string, object, number])[] = [
  ['eventfd2', 'eventfd', { calls: [290] }, EPERM],
  ['pipe2', 'pipe2', { calls: [293] }, EPERM],
  ['process_vm_readv', 'process_vm_readv', { calls: [310] }, EPERM],
  ['process_vm_readv', 'process_vm_readv', { calls: [310] }, ENOSYS],
  ['process_vm_writev', 'process_vm_writev', { calls: [311] }, EPERM],
  ['poll', 'poll', { calls: [7] }, EPERM],
  ['sched_getaffinity', 'sched_getaffinity', { calls: [204] }, EPERM],
  ['clone and clone3', 'clone', { calls: [56, 435] }, EAGAIN],
  ['madvise of MADV_DONTFORK', 'madvise', madvise(10), EPERM],
  ['madvise of MADV_NOHUGEPAGE', 'madvise', madvise(15), EPERM],
  ['UFFDIO_API', 'ioctl UFFDIO_API', ioctl(0xc018_aa3f), EPERM],
  ['UFFDIO_REGISTER', 'ioctl UFFDIO_REGISTER', ioctl(0xc020_aa00), EPERM],
  ['UFFDIO_WAKE', 'ioctl UFFDIO_WAKE', ioctl(0x8010_aa02), EPERM],
  ['UFFDIO_COPY', 'ioctl UFFDIO_COPY', ioctl(0xc028_aa03), EPERM],
  ['UFFDIO_ZEROPAGE', 'ioctl UFFDIO_ZEROPAGE', ioctl(0xc020_aa04), EPERM],
  ['UFFDIO_POISON', 'ioctl UFFDIO_POISON', ioctl(0xc020_aa08), EPERM],
];

describe.skipIf(process.arch !== 'x64')('where the kernel refuses a system call to the process', () => {
  test.each(REFUSED)(
    '%s: opening a pager and the probe say the same, the error names %s, and nothing is left',
    async (_, syscall, refusal, errno) => {
      const life = await lifeOf(
        'filtered.mjs',
        JSON.stringify({ name: 'userfaultfd', refusal: { ...refusal, errno } }),
      );
      expect(life).toMatchObject({ open: false, wrong: [], left: NOTHING, probed: { met: false } });
      expect(refusalsOf(life)).toContain(syscall);
    },
  );

  test('UFFDIO_COPY, to one that has adopted a userfaultfd: opening names it', async () => {
    const refusal = { ...ioctl(0xc028_aa03), errno: EPERM };
    const life = await lifeOf('filtered.mjs', JSON.stringify({ name: 'adopt', refusal }));
    expect(life).toMatchObject({ open: false, wrong: [] });
    expect(refusalsOf(life)).toContain('ioctl UFFDIO_COPY');
  });

  test('userfaultfd, to one that has adopted one: the pager opens, works, and poisons what is missing', async () => {
    const refusal = { calls: [323], errno: EPERM };
    const life = await lifeOf('filtered.mjs', JSON.stringify({ name: 'adopt', refusal }));
    expect(life).toMatchObject({ open: true, failures: [], wrong: [], left: NOTHING, probed: { met: true } });
  });

  // Node.js ends the process by SIGSEGV where a thread collects garbage and cannot tell where its stack lies.
  test.for(KVM_SUBJECTS)(
    'sched_getaffinity, to %s: opening names it, and the process lives',
    async (name, context) => {
      skipWithoutKvm(name, context);
      const refusal = { calls: [203, 204], errno: EPERM };
      const life = await lifeOf('filtered.mjs', JSON.stringify({ name, refusal }));
      expect(life).toMatchObject({ open: false, wrong: [], left: NOTHING, probed: { met: false } });
      expect(refusalsOf(life)).toContain('sched_getaffinity');
    },
  );

  test('fallocate, which memory without a file does not need: the pager opens and works', async () => {
    const refusal = { calls: [285], errno: EPERM };
    const life = await lifeOf('filtered.mjs', JSON.stringify({ name: 'userfaultfd', refusal }));
    expect(life).toMatchObject({ open: true, failures: [], wrong: [], left: NOTHING, probed: { met: true } });
  });
});

/** What opening and the probe say agrees; a refusal names a system call; nothing is left. */
function expectAgreement(life: Life): void {
  expect(life).toMatchObject({ wrong: [], left: NOTHING, probed: { met: life.open } });
  if (life.open) expect(life.failures.filter(({ chain }) => chain[0]!.name !== 'errno')).toEqual([]);
  else expect(refusalsOf(life)[0]).toBeDefined();
}

const RLIMIT = { FSIZE: 1, MEMLOCK: 8 } as const;

describe('where the process has less than usual', () => {
  // What memory holds is read from /proc, where it can have pages that the pager did not map.
  test.for<readonly [string, boolean]>([
    ['userfaultfd', true],
    ['adopt', true],
    ['userfaultfd by continue', false],
    ['kvm-exit', true],
    ['guest-memfd', true],
    ['composite', true],
  ])('without /proc: %s opens: %s; the probe says the same', async ([name, opens], context) => {
    skipWithoutKvm(name, context);
    if (process.getuid?.() !== 0) context.skip('only root can unmount /proc in a namespace of mounts');
    const file = new URL('./fixtures/filtered.mjs', import.meta.url).pathname;
    const script = 'umount -l /proc && exec "$0" "$@"';
    const { stdout } = await run(
      'unshare',
      ['-m', 'sh', '-c', script, process.execPath, file, JSON.stringify({ name })],
      { timeout: 60_000 },
    );
    const life = JSON.parse(stdout) as Life;
    expectAgreement(life);
    expect(life.open).toBe(opens);
  });

  test.for(['userfaultfd', 'kvm-exit'])(
    '%s, with ever fewer threads in its control group (pids.max): opening and the probe say the same',
    async (name, context) => {
      skipWithoutKvm(name, context);
      const parent = ['/sys/fs/cgroup/pids', '/sys/fs/cgroup'].find((each) =>
        existsSync(join(each, 'cgroup.procs')),
      );
      if (!parent || process.getuid?.() !== 0) context.skip('no control group can be made here');
      const folder = join(parent!, `demand-paging-test-${process.pid}`);
      mkdirSync(folder);
      try {
        if (!existsSync(join(folder, 'pids.max'))) context.skip('no controller of pids');
        const opened: boolean[] = [];
        for (const spare of [0, 1, 2, 3, 6]) {
          const file = new URL('./fixtures/filtered.mjs', import.meta.url).pathname;
          const life = JSON.stringify({ name, threads: { folder, spare } });
          const script = 'echo $$ >"$1" && shift && exec "$@"';
          const args = ['-c', script, 'sh', join(folder, 'cgroup.procs'), process.execPath, file, life];
          const { stdout } = await run('sh', args, { timeout: 60_000 });
          const seen = JSON.parse(stdout) as Life;
          expectAgreement(seen);
          opened.push(seen.open);
          writeFileSync(join(folder, 'pids.max'), 'max');
        }
        expect(opened).toContain(true);
        expect(opened).toContain(false);
      } finally {
        rmdirSync(folder);
      }
    },
  );

  test.for(
    ['userfaultfd', 'userfaultfd over shmem', 'userfaultfd by continue', ...KVM_SUBJECTS].flatMap((name) => [
      [name, 'FSIZE', RLIMIT.FSIZE] as const,
      [name, 'MEMLOCK', RLIMIT.MEMLOCK] as const,
    ]),
  )('%s, where RLIMIT_%s is 0: opening and the probe say the same', async ([name, , resource], context) => {
    skipWithoutKvm(name, context);
    const life = await lifeOf('filtered.mjs', JSON.stringify({ name, limit: { resource, most: 0 } }));
    expectAgreement(life);
  });
});

describe.each(['userfaultfd', 'userfaultfd by continue'])(
  '%s, with fewer descriptors than it needs',
  (name) => {
    test('opens and works, or names what was refused; nothing is left', async () => {
      let opened = 0;
      for (const spare of [0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20]) {
        const life = await lifeOf('limited.mjs', name, `${spare}`);
        expect(life, `${spare} to spare`).toMatchObject({ wrong: [], left: NOTHING });
        if (life.open) opened++;
        else expect(refusalsOf(life)[0], `${spare} to spare`).toBeDefined();
        if (life.open) expect(life.failures, `${spare} to spare`).toEqual([]);
      }
      expect(opened).toBeGreaterThan(0);
      expect(opened).toBeLessThan(11);
    });
  },
);
