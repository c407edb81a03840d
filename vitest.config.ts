import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = fileURLToPath(new URL('./src/', import.meta.url));

/** Tests that share the kernel's state (huge pages, descriptors, KVM) run one file at a time. */
const KERNEL_TESTS = ['test/real/**/*.test.ts', 'test/linux/**/*.test.ts', 'test/cli/**/*.test.ts'];

/** Tests of the packed library as its users meet it. */
const PACKAGE_TESTS = ['test/package/**/*.test.ts'];

export default defineConfig({
  resolve: {
    // Tests and examples name the library as its users do and get the sources, without a build.
    alias: [
      { find: /^demand-paging$/, replacement: `${source}index.ts` },
      { find: /^demand-paging\/(.*)$/, replacement: `${source}$1/index.ts` },
    ],
  },
  test: {
    allowOnly: false,
    reporters: ['default', './test/support/count-reporter.ts', './test/support/process-reporter.ts'],
    // A flake in a pager is a fault of the pager: nothing is tried twice.
    retry: 0,
    // A snapshot is written when somebody asks for it (`-u`), never by running a new test.
    update: 'none',
    pool: 'forks',
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: [...KERNEL_TESTS, ...PACKAGE_TESTS],
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'kernel',
          include: KERNEL_TESTS,
          maxWorkers: 1,
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          globalSetup: ['./test/support/fresh-build.ts'],
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'package',
          include: PACKAGE_TESTS,
          maxWorkers: 1,
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          globalSetup: ['./test/support/build.ts'],
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
