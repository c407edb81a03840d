import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { hostFacts } from '../../src/linux/index.js';

const ROOT = join(import.meta.dirname, '..', '..');

/** The TypeScript of the README, block by block. */
const blocks = [...readFileSync(join(ROOT, 'README.md'), 'utf8').matchAll(/```ts\n(.*?)```/gs)].map(
  ([, code]) => code!,
);

/** Runs a program as a user of the package would: by name, from what was built. */
function run(
  code: string,
  name: string,
): { readonly status: number | null; readonly output: string; readonly errors: string } {
  const { outputText } = ts.transpileModule(code, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  const file = join(ROOT, `.readme-${process.pid}-${name}.mjs`); // in the package, so that its own name resolves
  writeFileSync(file, outputText);
  try {
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
      encoding: 'utf8',
      timeout: 60_000,
      cwd: ROOT,
    });
    return { status, output: stdout, errors: stderr };
  } finally {
    rmSync(file);
  }
}

describe('the README', () => {
  it('has programs to try', () => expect(blocks.length).toBe(2));

  it('pages a guest as it says', (context) => {
    const { state } = hostFacts().userfaultfd;
    if (state !== 'usable') context.skip(`/dev/userfaultfd is ${state}`);
    expect(run(blocks[0]!, 'page')).toEqual({ status: 0, output: '4096\n', errors: '' });
  });

  it('restores a GIC as it says', () => {
    expect(run(blocks[1]!, 'gic')).toEqual({ status: 0, output: '0 5 4\n0 1\n', errors: '' });
  });
});
