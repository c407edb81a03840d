import { defineConfig } from 'tsup';
import { entries } from './scripts/entries.mjs';

// Chunks are shared between entries, so a module must never look for its neighbour by
// `new URL('./x.js', import.meta.url)`: bundled, it may live in another folder. Workers are entries
// and are found by the package's own name, `createRequire(import.meta.url).resolve('demand-paging/…')`.
export default defineConfig({
  entry: Object.fromEntries(entries().map(({ name, source }) => [name, source])),
  format: 'esm',
  platform: 'node',
  target: 'node20',
  splitting: true,
  sourcemap: true,
  clean: true,
  dts: true,
  // The native library is loaded by src/linux at the first call and never bundled.
  external: ['koffi'],
  // Builtins keep their `node:` prefix, which no package can shadow.
  removeNodeProtocol: false,
});
