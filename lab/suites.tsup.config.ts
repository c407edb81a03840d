import { defineConfig } from 'tsup';

// How suites are bundled for the machine: the library and its dependencies are found by name there, as by a
// user.
export default defineConfig({
  format: 'esm',
  platform: 'node',
  target: 'node20',
  external: [/^demand-paging/],
  // `node:test` has no name without the prefix.
  removeNodeProtocol: false,
  silent: true,
});
