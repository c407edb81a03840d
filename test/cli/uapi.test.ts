import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { cli, Workplace } from './cli.js';

const fixture = (name: string): string => new URL(`fixtures/uapis/${name}`, import.meta.url).pathname;

describe('uapi', () => {
  test('prints the header, the ioctls with their numbers, and the row of the matrix', async () => {
    const { status, stdout } = await cli(['uapi', 'present-bitmap']);
    expect(stdout).toMatch(
      /^present-bitmap: RFC: A KVM-specific alternative to UserfaultFD\nDavid Matlack, 2023-11/,
    );
    expect(stdout).toContain('struct kvm_mark_present { /* 24 bytes */');
    expect(stdout).toMatch(/KVM_MARK_PRESENT +vm +0x4018aef1 +kvm_mark_present +marks GFNs present/);
    expect(stdout).toMatch(/\nuapi +vcpu-load .*kernel-copy[^]*\npresent-bitmap +exits .*blocks/);
    expect(stdout).toMatch(/\nunmediated: vmm-load, .*external-vhost/);
    expect(status).toBe(0);
  });

  test('--header prints one that a C compiler takes', async (context) => {
    if (spawnSync('gcc', ['--version']).status !== 0) context.skip('no gcc');
    const { stdout } = await cli(['uapi', 'async-pf', '--header']);
    using workplace = new Workplace();
    const file = workplace.path('uapi.c');
    writeFileSync(file, `${stdout}\nint main(void) { return sizeof(struct kvm_async_pf_ready) != 8; }\n`);
    const compiled = spawnSync('gcc', [
      '-std=c11',
      '-Wall',
      '-Wextra',
      '-Werror',
      '-o',
      workplace.path('uapi'),
      file,
    ]);
    expect(String(compiled.stderr)).toBe('');
    expect(spawnSync(workplace.path('uapi')).status).toBe(0);
  });

  test("takes a module's prototype, and says all of it in JSON", async () => {
    const { stdout } = await cli(['uapi', fixture('sound.mjs'), '--json']);
    const rfc = JSON.parse(stdout) as Record<string, unknown>;
    expect(rfc).toMatchObject({ name: 'fixture', ioctls: 'no ioctls', verbs: ['copy', 'zeropage', 'wake'] });
    expect(rfc['unmediated']).toContain('kernel-copy');
  });

  test('refuses what is no prototype', async () => {
    const { status, stdout, stderr } = await cli(['uapi', 'memory']);
    expect(stderr).toMatch(/^error NOT_A_UAPI: memory is a backend[^]*hint: Those are: .*present-bitmap/);
    expect(stdout).toBe('');
    expect(status).toBe(1);
  });
});
