import type { KnipConfig } from 'knip';
import { entries } from './scripts/entries.mjs';

const config: KnipConfig = {
  entry: [
    ...entries().map(({ source }) => source),
    'scripts/*.mjs',
    'test/**/*.test.ts',
    'test/**/*.mjs',
    'test/package/consumers/*.ts',
    'bench/*.ts',
    'examples/**/*.ts',
  ],
  project: ['src/**/*.ts', 'scripts/*.mjs', 'test/**/*.{ts,mjs}', 'bench/**/*.ts', 'examples/**/*.ts'],
  // Run by path from scripts/checks.mjs, where no import shows it.
  ignoreDependencies: ['@arethetypeswrong/cli', 'publint'],
  // The compiler and the package tools of the host, for tests that skip without them; mkfifo is every host's.
  ignoreBinaries: ['gcc', 'apt-get', 'dpkg', 'mkfifo'],
  // A contract's types are worth exporting before a second file needs them.
  ignoreExportsUsedInFile: true,
  rules: { dependencies: 'warn' },
};

export default config;
