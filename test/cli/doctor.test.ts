import { beforeAll, describe, expect, test } from 'vitest';
import { cli, type CliEnd, nobody, widest } from './cli.js';

interface Finding {
  readonly name: string;
  readonly live: boolean;
  readonly requirements: readonly { what: string; met: boolean; remedy: string }[];
  readonly coverage?: readonly { site: string; effect: string; evidence: string }[];
  readonly failure?: string;
}

interface Document {
  readonly host: { kernel: string; architecture: string; page_bytes: number };
  readonly backends: readonly Finding[];
}

const at = ({ coverage }: Finding, site: string): object | undefined =>
  coverage?.find((row) => row.site === site);

describe('doctor', () => {
  let end: CliEnd;
  let document: Document;
  const finding = (wanted: string): Finding => document.backends.find(({ name }) => name === wanted)!;
  beforeAll(async () => {
    end = await cli(['doctor', '--json']);
    document = JSON.parse(end.stdout) as Document;
  });

  test('measures every live backend within half a minute', () => {
    const { host, backends } = document;
    expect(host.architecture).toBe(process.arch);
    expect(host.page_bytes).toBeGreaterThanOrEqual(4096);
    for (const { failure, coverage, live, requirements } of backends) {
      expect(failure).toBeUndefined();
      expect(coverage !== undefined).toBe(live);
      for (const { met, remedy } of requirements) expect(remedy === '').toBe(met);
    }
    const model = finding('memory');
    expect(at(model, 'vcpu-load')).toMatchObject({ effect: 'blocks', evidence: 'measured' });
    expect(at(model, 'external-mapping')).toMatchObject({ effect: 'unmediated', evidence: 'measured' });
    expect(end.elapsed_ms).toBeLessThan(30_000);
    expect(end.status).toBe(0);
  });

  test('finds on the real kernel what userfaultfd does at each site', (context) => {
    const real = finding('userfaultfd');
    if (!real.live) return context.skip('no userfaultfd for kernel accesses here');
    for (const site of ['vmm-load', 'vmm-store', 'vmm-syscall', 'kernel-copy', 'external-vm-readv']) {
      expect(at(real, site)).toMatchObject({ effect: 'blocks', evidence: 'measured' });
    }
    const measured = (name: string, site: string): object | undefined => at(finding(name), site);
    expect(measured('uffd shmem', 'external-mapping')).toMatchObject({
      effect: 'unmediated',
      evidence: 'measured',
    });
    expect(measured('uffd user', 'vmm-load')).toMatchObject({ effect: 'blocks', evidence: 'measured' });
    expect(measured('uffd user', 'vmm-syscall')).toMatchObject({ effect: 'errors', evidence: 'measured' });
    expect(measured('uffd sigbus', 'kernel-copy')).toMatchObject({ effect: 'errors', evidence: 'measured' });
  });

  test('finds what KVM leaves to others, and what a composition mends', (context) => {
    const [exits, both] = [finding('kvm-exit'), finding('composite')];
    if (!exits.live || !both.live) return context.skip('no KVM with userfaultfd here');
    for (const site of ['vmm-load', 'vmm-store', 'vmm-syscall', 'external-vm-readv']) {
      expect(at(exits, site)).toMatchObject({ effect: 'unmediated', evidence: 'measured' });
      expect(at(both, site)).toMatchObject({ effect: 'blocks', evidence: 'measured' });
    }
    for (const site of ['vcpu-load', 'vcpu-store', 'vcpu-atomic', 'vcpu-fetch']) {
      expect(at(exits, site)).toMatchObject({ effect: 'exits', evidence: 'measured' });
      expect(at(both, site)).toMatchObject({ effect: 'exits', evidence: 'measured' });
    }
    expect(at(exits, 'kernel-copy')).toMatchObject({ effect: 'errors', evidence: 'measured' });
    expect(at(both, 'kernel-copy')).toMatchObject({ effect: 'blocks', evidence: 'measured' });
  });

  test('fits 80 columns, and --brief two lines', async () => {
    const { stdout } = await cli(['doctor']);
    expect(widest(stdout)).toBeLessThanOrEqual(80);
    expect(stdout).toContain('kernel-copy');
    const brief = await cli(['doctor', '--brief']);
    expect(brief.stdout).toMatch(/^.*page size \d+ bytes.*\nbackends live: .*memory.*\n$/);
    expect(brief.status).toBe(0);
  });

  test('names the setting or privilege that closes each gap', async (context) => {
    const other = await nobody();
    if ('lacking' in other) return context.skip(other.lacking);
    const { stdout, status } = await cli(['doctor', '--json'], other.options);
    const real = (JSON.parse(stdout) as Document).backends.find(({ name }) => name === 'userfaultfd')!;
    if (real.live) return context.skip('this host lets everybody use userfaultfd');
    const gap = real.requirements.find(({ met }) => !met)!;
    expect(gap.remedy).toMatch(/vm\.unprivileged_userfaultfd|CAP_SYS_PTRACE|\/dev\/userfaultfd/);
    expect(status).toBe(0);
  });
});
