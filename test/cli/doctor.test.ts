import { describe, expect, test } from 'vitest';
import { cli, nobody, widest } from './cli.js';

interface Finding {
  readonly name: string;
  readonly live: boolean;
  readonly requirements: readonly { what: string; met: boolean; remedy: string }[];
  readonly coverage?: readonly { site: string; effect: string; evidence: string }[];
  readonly failure?: string;
}

interface Document {
  readonly host: { kernel: string; architecture: string; pageBytes: number };
  readonly backends: readonly Finding[];
}

const at = ({ coverage }: Finding, site: string): object | undefined =>
  coverage?.find((row) => row.site === site);

describe('doctor', () => {
  test('measures every live backend within ten seconds', async () => {
    const { status, stdout, elapsed_ms } = await cli(['doctor', '--json']);
    const { host, backends } = JSON.parse(stdout) as Document;
    expect(host.architecture).toBe(process.arch);
    expect(host.pageBytes).toBeGreaterThanOrEqual(4096);
    for (const finding of backends) {
      expect(finding.failure).toBeUndefined();
      expect(finding.coverage !== undefined).toBe(finding.live);
      for (const { met, remedy } of finding.requirements) expect(remedy === '').toBe(met);
    }
    const model = backends.find(({ name }) => name === 'memory')!;
    expect(at(model, 'vcpu-load')).toMatchObject({ effect: 'blocks', evidence: 'measured' });
    expect(at(model, 'external-mapping')).toMatchObject({ effect: 'unmediated', evidence: 'measured' });
    expect(elapsed_ms).toBeLessThan(10_000);
    expect(status).toBe(0);
  });

  test('finds on the real kernel what userfaultfd does at each site', async (context) => {
    const { backends } = JSON.parse((await cli(['doctor', '--json'])).stdout) as Document;
    const [real, shmem, user, sigbus] = ['userfaultfd', 'uffd shmem', 'uffd user', 'uffd sigbus'].map(
      (wanted) => backends.find(({ name }) => name === wanted)!,
    ) as [Finding, Finding, Finding, Finding];
    if (!real.live) return context.skip('no userfaultfd for kernel accesses here');
    for (const site of ['vmm-load', 'vmm-store', 'vmm-syscall', 'kernel-copy', 'external-vm-readv']) {
      expect(at(real, site)).toMatchObject({ effect: 'blocks', evidence: 'measured' });
    }
    expect(at(shmem, 'external-mapping')).toMatchObject({ effect: 'unmediated', evidence: 'measured' });
    expect(at(user, 'vmm-load')).toMatchObject({ effect: 'blocks', evidence: 'measured' });
    expect(at(user, 'vmm-syscall')).toMatchObject({ effect: 'errors', evidence: 'measured' });
    expect(at(sigbus, 'kernel-copy')).toMatchObject({ effect: 'errors', evidence: 'measured' });
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
