import { afterAll, describe, expect, test } from 'vitest';
import { libraryEntries, specifier } from './export-list.js';
import { Sandbox } from './sandbox.js';

/** Imports a module and prints the native libraries that the process has loaded since it started. */
function probe(module: string): string {
  return `
    const native = () => process.report.getReport().sharedObjects.filter((file) => file.endsWith('.node'));
    const before = native();
    await import('${module}');
    process.stdout.write(JSON.stringify(native().filter((file) => !before.includes(file))));
  `;
}

describe('importing loads no native code', () => {
  const complete = new Sandbox();
  const bare = new Sandbox(['koffi']);
  afterAll(() => {
    complete[Symbol.dispose]();
    bare[Symbol.dispose]();
  });

  test('the probe sees the native library when something does load it', () => {
    const { output, status } = complete.node(['--input-type=module', '-e', probe('koffi')]);
    expect(status, output).toBe(0);
    expect(JSON.parse(output)).toEqual([expect.stringMatching(/koffi.*\.node$/)]);
  });

  test('the bare project cannot find the native library', () => {
    const { output, status } = bare.node(['--input-type=module', '-e', probe('koffi')]);
    expect(status).not.toBe(0);
    expect(output).toContain('ERR_MODULE_NOT_FOUND');
  });

  describe.each(libraryEntries().map(specifier))('%s', (module) => {
    test('where the native library is installed', () => {
      expect(complete.node(['--input-type=module', '-e', probe(module)])).toEqual({
        status: 0,
        output: '[]',
      });
    });

    test('where it is missing', () => {
      expect(bare.node(['--input-type=module', '-e', probe(module)])).toEqual({ status: 0, output: '[]' });
    });
  });
});
