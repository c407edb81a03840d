import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test, type TestContext } from 'vitest';
import { DemandPagingError, ERROR_CODES } from '../../src/api/index.js';
import {
  check,
  ERRNO,
  hostFacts,
  isAtLeast,
  KVM_CAP,
  kvmFacts,
  pageSize,
  syscallNumber,
  systemError,
  UFFD_FEATURE,
} from '../../src/linux/index.js';

describe('host facts', () => {
  test('agree with what the system says elsewhere', () => {
    const facts = hostFacts();
    expect(facts.kernelRelease).toBe(execFileSync('uname', ['-r'], { encoding: 'utf8' }).trim());
    expect(facts.pageSize).toBe(Number(execFileSync('getconf', ['PAGESIZE'], { encoding: 'utf8' })));
    expect(facts.pageSize).toBe(pageSize());
    expect(facts.cpus).toBe(Number(execFileSync('nproc', { encoding: 'utf8' })));
    expect(facts.user).toBe(Number(execFileSync('id', ['-u'], { encoding: 'utf8' })));
    expect(facts.sysctls['vm.nr_hugepages']).toBe(readFileSync('/proc/sys/vm/nr_hugepages', 'utf8').trim());
    for (const { path, state } of [facts.kvm, facts.userfaultfd]) {
      expect(state === 'absent').toBe(!existsSync(path));
    }
    expect(Object.keys(facts.capabilities)).toContain('CAP_SYS_PTRACE');
  });

  test("KVM's capabilities have their names", (context) => {
    if (hostFacts().kvm.state !== 'usable') context.skip('no usable /dev/kvm here');
    const { capabilities } = kvmFacts();
    expect(capabilities.USER_MEMORY).toBe(1);
    expect(Object.keys(capabilities)).toEqual(Object.keys(KVM_CAP));
  });

  test.each([
    ['6.18.44-fc', 6, 18, true],
    ['6.18.44', 6, 19, false],
    ['7.3-rc1', 6, 18, true],
    ['5.15.0-91-generic', 6, 1, false],
    ['6.8.0', 6, 18, false],
  ] as const)('%s is at least %d.%d: %s', (release, major, minor, expected) => {
    expect(isAtLeast(release, major, minor)).toBe(expected);
  });
});

describe('failures', () => {
  test.each([
    ['userfaultfd', ERRNO.EPERM, 'NO_PERMISSION', 'vm.unprivileged_userfaultfd=1'],
    ['userfaultfd', ERRNO.EPERM, 'NO_PERMISSION', 'CAP_SYS_PTRACE'],
    ['pidfd_getfd', ERRNO.EPERM, 'NO_PERMISSION', 'ptrace_scope'],
    ['process_vm_readv', ERRNO.ESRCH, 'MEMORY_GONE', 'process_vm_readv: ESRCH'],
    ['memfd_create', ERRNO.ENOSYS, 'NOT_SUPPORTED', 'ENOSYS'],
    ['mmap', ERRNO.ENOMEM, 'KERNEL', 'ENOMEM'],
  ] as const)('%s with errno %d is %s and speaks of %s', (syscall, errno, code, text) => {
    const error = systemError(syscall, errno, 'it failed');
    expect(error).toBeInstanceOf(DemandPagingError);
    expect(error).toMatchObject({ code, errno, syscall });
    expect(error.message).toContain(text);
    expect(ERROR_CODES).toContain(error.code);
  });

  test.each([
    ['/dev/userfaultfd', ERRNO.EACCES, 'chmod'],
    ['/dev/userfaultfd', ERRNO.ENOENT, 'Linux 6.1'],
    ['/dev/kvm', ERRNO.EACCES, 'group'],
  ])('opening %s with errno %d says what to do: %s', (subject, errno, text) => {
    expect(systemError('open', errno, `cannot open ${subject}`, { subject }).hint).toContain(text);
  });

  test('check passes results on and throws for negative ones', () => {
    expect(check(0, 'x', 'y')).toBe(0);
    expect(check(7, 'x', 'y')).toBe(7);
    expect(() => check(-ERRNO.EBUSY, 'x', 'y', { codes: { [ERRNO.EBUSY]: 'ALREADY_REGISTERED' } })).toThrow(
      expect.objectContaining({ code: 'ALREADY_REGISTERED', errno: ERRNO.EBUSY, syscall: 'x' }),
    );
  });
});

describe('without privileges', () => {
  const NOBODY = 65_534;

  /** Runs code with the built seam as an unprivileged user; what it prints is JSON. */
  function asNobody(context: TestContext, body: string): unknown {
    const { user, sysctls } = hostFacts();
    if (user !== 0) context.skip('only root may become another user');
    if (sysctls['vm.unprivileged_userfaultfd'] !== '0') context.skip('vm.unprivileged_userfaultfd is not 0');
    const wrapped = `import('demand-paging/linux').then((linux) => {
      const attempt = (action) => { try { return action(); } catch ({ code, errno, hint }) { return { code, errno, hint }; } };
      console.log(JSON.stringify(${body}));
    });`;
    const options = { encoding: 'utf8', uid: NOBODY, gid: NOBODY } as const;
    return JSON.parse(execFileSync(process.execPath, ['-e', wrapped], options));
  }

  test('each way to a userfaultfd says which setting is missing', (context) => {
    const outcomes = asNobody(
      context,
      `['device', 'syscall', 'either'].map((via) => attempt(() => linux.Userfaultfd.open({ via }).enabled))`,
    );
    expect(outcomes).toEqual([
      { code: 'NO_PERMISSION', errno: ERRNO.EACCES, hint: expect.stringContaining('/dev/userfaultfd') },
      {
        code: 'NO_PERMISSION',
        errno: ERRNO.EPERM,
        hint: expect.stringContaining('vm.unprivileged_userfaultfd=1'),
      },
      { code: 'NO_PERMISSION', errno: ERRNO.EPERM, hint: expect.stringContaining('CAP_SYS_PTRACE') },
    ]);
  });

  test('user-mode-only works, because it was asked for', (context) => {
    const body = `attempt(() => linux.Userfaultfd.open({ userModeOnly: true, features: linux.UFFD_FEATURE.THREAD_ID }).enabled)`;
    expect(asNobody(context, body)).toBe(UFFD_FEATURE.THREAD_ID);
  });

  test('host facts say what is refused', (context) => {
    const body = `[linux.hostFacts().userfaultfd.state, linux.hostFacts().capabilities.CAP_SYS_PTRACE]`;
    expect(asNobody(context, body)).toEqual(['refused', false]);
    // More than can be free: what is free already needs no privilege.
    const wanted = 'linux.hugePagePool().total + 1';
    expect(asNobody(context, `attempt(() => linux.reserveHugePages(${wanted}))`)).toMatchObject({
      code: 'NO_PERMISSION',
    });
  });
});

describe('loading', () => {
  const script = (body: string): string => {
    const loaded = `const loaded = () => require('node:fs').readFileSync('/proc/self/maps', 'utf8').includes('koffi.node');`;
    const wrapped = `${loaded} import('demand-paging/linux').then((linux) => { ${body} });`;
    return execFileSync(process.execPath, ['-e', wrapped], { encoding: 'utf8' }).trim();
  };

  test('importing the built seam loads no native code; the first call does', () => {
    expect(
      script(
        'console.log(loaded()); linux.hostFacts(); console.log(loaded()); linux.pageSize(); console.log(loaded())',
      ),
    ).toBe('false\nfalse\ntrue');
  });

  test('another platform is NATIVE_UNAVAILABLE by name', () => {
    const body = `Object.defineProperty(process, 'platform', { value: 'darwin' });
      try { linux.pageSize(); } catch (error) { console.log(error.code, error.message.includes('darwin/'), loaded()); }`;
    expect(script(body)).toBe('NATIVE_UNAVAILABLE true false');
    expect(() => syscallNumber('userfaultfd', 'riscv64')).toThrow(
      expect.objectContaining({ code: 'NATIVE_UNAVAILABLE' }),
    );
  });
});
