import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { ROOT } from '../../scripts/entries.mjs';
import { hostFacts } from '../../src/linux/index.js';
import { Sandbox } from './sandbox.js';

/** Tries the coverage of shmem, for which another process runs an entry of the installed package. */
const COVERAGE = `
import { measureCoverage } from 'demand-paging/backends/userfaultfd';
const coverage = await measureCoverage({ sites: [], start: () => Promise.reject(new Error('no site was given')) });
const { effect, evidence } = coverage.find(({ site }) => site === 'external-mapping');
console.log(effect, evidence);
`;

describe('an installed package', () => {
  const sandbox = new Sandbox();
  afterAll(() => sandbox[Symbol.dispose]());

  test('holds the C of its reproducers, as it is here', () => {
    const installed = join(sandbox.folder, 'node_modules', 'demand-paging', 'assets', 'reproducer.h');
    expect(readFileSync(installed, 'utf8')).toBe(readFileSync(join(ROOT, 'assets', 'reproducer.h'), 'utf8'));
  });

  test('starts the process that accesses memory by a mapping of its own', (context) => {
    const { state } = hostFacts().userfaultfd;
    if (state !== 'usable') context.skip(`/dev/userfaultfd is ${state}`);
    sandbox.write('coverage.mjs', COVERAGE);
    expect(sandbox.node(['coverage.mjs'])).toEqual({ status: 0, output: 'unmediated measured\n' });
  });
});
