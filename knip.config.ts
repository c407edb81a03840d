import type { KnipConfig } from 'knip';
import { entries } from './scripts/entries.mjs';

const config: KnipConfig = {
  entry: [
    ...entries().map(({ source }) => source),
    'scripts/*.mjs',
    'test/**/*.test.ts',
    'test/**/*.mjs',
    // Modules that the command line is given, by path.
    'test/cli/fixtures/**/*.ts',
    'test/package/consumers/*.ts',
    'bench/*.ts',
    'test/soak/soak.ts',
    'lab/lab.ts',
    'lab/guest/*.mjs',
    'lab/suites.tsup.config.ts',
    'lab/suites/**/*.ts',
    'lab/workers/*.ts',
    'examples/**/*.ts',
  ],
  project: [
    'src/**/*.ts',
    'scripts/*.mjs',
    'test/**/*.{ts,mjs}',
    'bench/**/*.ts',
    'lab/**/*.{ts,mjs}',
    'examples/**/*.ts',
  ],
  // Modules of somebody else's, good and bad: loaded by path.
  ignore: ['test/cli/fixtures/uapis/**'],
  // Run by path from scripts/checks.mjs, where no import shows it.
  ignoreDependencies: ['@arethetypeswrong/cli', 'publint'],
  // The compiler and the package tools of the host, for tests that skip without them; mkfifo, mount and their
  // like are every host's.
  ignoreBinaries: [
    'gcc',
    'apt-get',
    'dpkg',
    'mkfifo',
    'flock',
    'unshare',
    'dmesg',
    'mount',
    'umount',
    'setpriv',
  ],
  // A contract's types are worth exporting before a second file needs them.
  ignoreExportsUsedInFile: true,
  rules: { dependencies: 'warn' },
};

export default config;
