import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { type Coverage, type SiteCoverage } from 'demand-paging';
import { record } from './support/record.js';

/** What `doctor --json` says of a backend. */
interface Finding {
  readonly name: string;
  readonly live: boolean;
  readonly requirements: readonly { readonly what: string; readonly met: boolean; readonly found: string }[];
  readonly coverage?: Coverage;
  readonly otherwise: readonly { readonly site: string; readonly declared: string; readonly seen: string }[];
  readonly failure?: string;
}

/** A program's last words. */
interface Ended {
  readonly stdout: string;
  readonly stderr: string;
  readonly signal?: string;
}

const run = promisify(execFile);

/** As in the table of the documentation: effects that were only declared are in brackets. */
const cell = (row: SiteCoverage | undefined): string => {
  if (row === undefined) return '';
  return row.evidence === 'measured' ? row.effect : `[${row.effect}]`;
};

/**
 * Where a measured access that is not intercepted is as declared: past KVM's slots, or through a second
 * mapping.
 */
const mayPass = (backend: string, site: string): boolean =>
  site === 'external-mapping' ||
  (/^(kvm-exit|exit |slot hole)/.test(backend) && /^(vmm|external)-/.test(site));

test('the coverage of each backend, measured on this kernel', async () => {
  const manifest = createRequire(import.meta.url).resolve('demand-paging/package.json');
  const cli = manifest.replace('package.json', 'dist/cli.js');
  // Its status is not 0 where a backend could not be measured: what it says of it is looked at below.
  const { stdout, stderr, signal }: Ended = await run(process.execPath, [cli, 'doctor', '--json'], {
    timeout: 300_000,
  }).catch((error: unknown) => error as Ended);
  // Where a program died is said in the kernel's log.
  const log = signal ? execFileSync('dmesg', { encoding: 'utf8' }).split('\n').slice(-45).join('\n') : '';
  assert.match(stdout, /^\{/, `doctor ended by ${signal ?? 'itself'}: ${stderr}\n${log}`);
  const { backends } = JSON.parse(stdout) as { backends: readonly Finding[] };
  const live = backends.filter(({ coverage }) => coverage !== undefined);
  const sites = [...new Set(live.flatMap(({ coverage }) => coverage!.map(({ site }) => site)))];
  record(
    'what a missing page does',
    sites.map((site) => ({
      site,
      ...Object.fromEntries(
        live.map(({ name, coverage }) => [name, cell(coverage!.find((row) => row.site === site))]),
      ),
    })),
  );
  const failures = backends.filter(({ failure }) => failure !== undefined);
  if (failures.length > 0)
    record(
      'backends that could not be measured',
      Object.fromEntries(failures.map(({ name, failure }) => [name, failure])),
    );
  const lacking = backends.filter(({ live: isLive }) => !isLive);
  record(
    'backends that this kernel has not what it takes for',
    Object.fromEntries(
      lacking.map(({ name, requirements }) => {
        const unmet = requirements.filter(({ met }) => !met);
        return [name, unmet.map(({ what, found }) => `${what}: ${found}`).join('; ')];
      }),
    ),
  );
  const userfaultfd = live.find(({ name }) => name === 'userfaultfd');
  assert.ok(
    userfaultfd?.coverage?.some(({ evidence }) => evidence === 'measured'),
    'nothing was measured',
  );
  for (const { name, coverage } of live)
    for (const { site, effect, evidence } of coverage!)
      assert.ok(
        evidence !== 'measured' || effect !== 'unmediated' || mayPass(name, site),
        `${name}: ${site} is not intercepted`,
      );
  assert.deepEqual(
    live.flatMap(({ name, otherwise }) =>
      otherwise.map(({ site, declared, seen }) => `${name}: ${site} is declared '${declared}', and ${seen}`),
    ),
    [],
  );
  assert.deepEqual(
    failures.map(({ name, failure }) => `${name}: ${failure}`),
    [],
  );
});
