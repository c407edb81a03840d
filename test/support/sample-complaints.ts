import { join } from 'node:path';
import ts from 'typescript';
import { ROOT } from '../../scripts/entries.mjs';

/**
 * The compiler's complaints about files of a folder, samples that name the library, under this project's own
 * settings.
 */
export function complaintsAbout(folder: string, files: readonly string[]): readonly string[] {
  const path = join(ROOT, 'tsconfig.json');
  const { config } = ts.readConfigFile(path, (file) => ts.sys.readFile(file)) as { config: object };
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const program = ts.createProgram(
    files.map((name) => join(folder, name)),
    {
      ...options,
      noEmit: true,
      typeRoots: [join(ROOT, 'node_modules/@types')],
      baseUrl: ROOT,
      paths: { 'demand-paging': ['src/index.ts'], 'demand-paging/*': ['src/*/index.ts'] },
    },
  );
  return ts
    .getPreEmitDiagnostics(program)
    .filter(({ file }) => file === undefined || file.fileName.startsWith(folder))
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
}
