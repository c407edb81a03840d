import { entries } from './scripts/entries.mjs';

/** @type {Partial<import('typedoc').TypeDocOptions>} */
export default {
  name: 'demand-paging',
  entryPoints: entries()
    .filter(({ kind }) => kind === 'library')
    .map(({ source }) => source),
  out: 'docs/api',
  disableSources: true,
  excludeInternal: true,
  excludePrivate: true,
  readme: 'README.md',
};
