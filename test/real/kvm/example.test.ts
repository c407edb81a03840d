import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { probeGuest } from 'demand-paging/guests';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const [MEBIBYTES, VCPUS] = [2, 2];

test.for(['userfaultfd', 'kvm-exit', 'memslot-hole', 'composite', 'guest-memfd'] as const)(
  'the example VMM: its guest, with every page missing, computes what it has to, by %s',
  async (name, context) => {
    const backend = name === 'userfaultfd' ? 'kvm-exit' : name;
    const lacking = [...probeGuest({ backend }).list, ...userfaultfd().probe().list].find(({ met }) => !met);
    if (lacking) context.skip(`${lacking.what}: ${lacking.found}; ${lacking.remedy}`);
    const args = ['scripts/run-typescript.mjs', 'examples/vmm.ts', name, String(MEBIBYTES), String(VCPUS)];
    const { stdout } = await run(process.execPath, args, { cwd: ROOT });
    expect(stdout).toContain(`${name}: ${VCPUS} vCPUs, ${MEBIBYTES} MiB each, every page missing`);
    expect(stdout).toContain('the guest computed what it had to');
    // Every page of data was fetched for a fault, in the backend's chunks.
    const [, vcpu, kernel, other] = /faults: vCPU (\d+), KVM (\d+), other (\d+)/.exec(stdout)!.map(Number);
    expect(vcpu! + kernel! + other!).toBeGreaterThanOrEqual((MEBIBYTES * VCPUS * 1024) / 64);
  },
);
