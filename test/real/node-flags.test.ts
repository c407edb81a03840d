import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { probeGuestCoverage } from 'demand-paging/guests';
import { ROOT } from '../../scripts/entries.mjs';

const FILE = './test/real/fixtures/start-all.mjs';
const SCRIPT = `import('${FILE}')`;

interface Start {
  readonly args: readonly string[];
  readonly options?: string;
  /** On standard input. */
  readonly input?: string;
}

describe('each thread and process of the library starts', () => {
  test.for<[string, Start]>([
    ['a module on the command line', { args: ['--input-type', 'module', '-e', SCRIPT] }],
    ['a module on standard input', { args: ['--input-type=module', '-'], input: SCRIPT }],
    ['a script that NODE_OPTIONS makes a module', { args: ['-e', SCRIPT], options: '--input-type=module' }],
    ['an expression that is printed', { args: ['--input-type=commonjs', '-p', SCRIPT] }],
    [
      'a file, with a module before it',
      { args: ['--import', 'data:text/javascript,globalThis.before = 1', FILE] },
    ],
  ])('from %s', ([, { args, options = '', input }], context) => {
    const { met, list } = userfaultfd().probe();
    if (!met) return context.skip(list.map(({ found }) => found).join());
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: ROOT,
      env: { ...process.env, NODE_OPTIONS: options },
      ...(input !== undefined && { input }),
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^vmm-load external-vm-readv/m);
    if (probeGuestCoverage({ backend: 'kvm-exit', memory: 'shmem' }).met)
      expect(stdout).toMatch(/guest:vcpu-load .*guest:external-mapping/);
    expect(status).toBe(0);
  });
});
