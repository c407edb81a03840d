import { setImmediate } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type AccessSite, coverageGaps, type MemoryLayout } from '../../../src/api/index.js';
import { type CoverageAccessor, measureCoverage } from '../../../src/backends/userfaultfd/index.js';
import { startAccessor } from '../../../src/accessors/index.js';
import { needUserfaultfd, PAGE } from './scene.js';

const SITES = ['vmm-load', 'vmm-store', 'vmm-syscall', 'kernel-copy', 'external-vm-readv'] as const;
const start = (site: AccessSite, layout: MemoryLayout): Promise<CoverageAccessor> =>
  startAccessor(site as (typeof SITES)[number], layout);
const byName = (rows: readonly { readonly site: AccessSite }[], site: AccessSite): unknown =>
  rows.find((row) => row.site === site);
const measured = { granule_bytes: PAGE, evidence: 'measured' };

describe('measured on this host', () => {
  test('every access of this process and of process_vm_readv waits; another mapping of the file sees zeros', async (context) => {
    needUserfaultfd(context);
    const coverage = await measureCoverage({ sites: SITES, start });
    for (const site of SITES)
      expect(byName(coverage, site)).toMatchObject({ effect: 'blocks', address: 'exact', ...measured });
    expect(byName(coverage, 'external-mapping')).toMatchObject({
      effect: 'unmediated',
      address: 'none',
      ...measured,
    });
    expect(byName(coverage, 'vcpu-load')).toMatchObject({ effect: 'blocks', evidence: 'declared' });
    expect(coverageGaps(coverage, ['vmm', 'kernel', 'vcpu'])).toEqual([]);
    expect(coverageGaps(coverage, ['external'])).toEqual(['external-mapping']);
  });

  test('user-mode-only: what the kernel does for itself fails', async () => {
    const coverage = await measureCoverage({
      backend: { userModeOnly: true },
      memory: 'anonymous',
      sites: SITES,
      start,
    });
    for (const site of ['vmm-load', 'vmm-store'] as const)
      expect(byName(coverage, site)).toMatchObject({ effect: 'blocks', ...measured });
    for (const site of ['vmm-syscall', 'kernel-copy', 'external-vm-readv'] as const) {
      expect(byName(coverage, site)).toMatchObject({ effect: 'errors', address: 'none', ...measured });
    }
  });

  test('SIGBUS mode: everything fails; what would end this process is left declared', async (context) => {
    needUserfaultfd(context);
    const coverage = await measureCoverage({
      backend: { sigbus: true },
      memory: 'anonymous',
      sites: SITES,
      start,
    });
    for (const site of ['vmm-syscall', 'kernel-copy', 'external-vm-readv'] as const) {
      expect(byName(coverage, site)).toMatchObject({ effect: 'errors', ...measured });
    }
    expect(byName(coverage, 'vmm-load')).toMatchObject({ effect: 'errors', evidence: 'declared' });
  });

  test('the measurement can come out otherwise: an accessor that does not touch the memory is unmediated', async (context) => {
    needUserfaultfd(context);
    const idle: CoverageAccessor = {
      access: async () => {
        await setImmediate();
        return { ok: true, bytes: Uint8Array.of(0) };
      },
      stop: () => Promise.resolve(),
    };
    const coverage = await measureCoverage({
      memory: 'anonymous',
      sites: ['vmm-load'],
      start: () => Promise.resolve(idle),
    });
    expect(byName(coverage, 'vmm-load')).toMatchObject({ effect: 'unmediated', ...measured });
  });

  test('no result in time stays declared', async (context) => {
    needUserfaultfd(context);
    const never: CoverageAccessor = { access: () => new Promise(() => {}), stop: () => Promise.resolve() };
    const coverage = await measureCoverage({
      memory: 'anonymous',
      sites: ['vmm-load'],
      start: () => Promise.resolve(never),
      deadline_ms: 20,
    });
    expect(byName(coverage, 'vmm-load')).toMatchObject({ effect: 'blocks', evidence: 'declared' });
  });
});
