import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { libraryEntries, specifier } from './export-list.js';
import { Sandbox } from './sandbox.js';

/** The options of a user's compiler, strict to the point of checking our declarations themselves. */
const STRICT = {
  target: 'ES2022',
  lib: ['ES2023', 'ESNext.Disposable'],
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  skipLibCheck: false,
  types: ['node'],
  outDir: 'out',
};

const RESOLUTIONS = {
  NodeNext: { module: 'NodeNext', moduleResolution: 'NodeNext' },
  Bundler: { module: 'ESNext', moduleResolution: 'Bundler' },
};

/** A program as a user writes it; `use.ts` is also run. */
const PROGRAM = readFileSync(join(import.meta.dirname, 'consumers', 'use.ts'), 'utf8');

describe.each(Object.entries(RESOLUTIONS))('a project with %s resolution', (name, resolution) => {
  const sandbox = new Sandbox();
  beforeAll(() => {
    const compilerOptions = { ...STRICT, ...resolution };
    sandbox.write('tsconfig.json', JSON.stringify({ compilerOptions, include: ['use.ts', 'all.ts'] }));
    sandbox.write('use.ts', PROGRAM);
    const imports = libraryEntries().map(
      (entry, index) => `import * as e${index} from '${specifier(entry)}';`,
    );
    const uses = libraryEntries().map((_, index) => `e${index}`);
    sandbox.write('all.ts', `${imports.join('\n')}\nexport const all: object[] = [${uses.join(', ')}];\n`);
  });
  afterAll(() => sandbox[Symbol.dispose]());

  test('compiles', () => {
    expect(sandbox.compile()).toEqual({ status: 0, output: '' });
  });

  test('is told of a mistake', () => {
    sandbox.write('all.ts', `import { noSuchName } from 'demand-paging';\nexport default noSuchName;\n`);
    const { status, output } = sandbox.compile();
    expect(status).not.toBe(0);
    expect(output).toContain('noSuchName');
  });

  if (name === 'NodeNext') {
    test('runs', () => {
      expect(sandbox.node(['out/use.js'])).toEqual({ status: 0, output: 'ok\n' });
    });
  }
});
