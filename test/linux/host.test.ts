import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
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
