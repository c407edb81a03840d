// @ts-check
import { builtinModules } from 'node:module';
import tseslint from 'typescript-eslint';
import { INDEX_ONLY, LAYERS, NO_BUILTINS, SOLE_IMPORTERS } from './scripts/layers.mjs';

/**
 * What the files of one place may not import: packages that belong elsewhere, and the library by name.
 * @param {string} place a folder (with a slash) or a file below `src`; '' for the files directly in it
 */
function reservedPackages(place) {
  const reserved = Object.entries(SOLE_IMPORTERS)
    .filter(([, owner]) => place === '' || !place.startsWith(owner))
    .map(([name, owner]) => ({ regex: `^${name}(/|$)`, message: `Only src/${owner} imports ${name}.` }));
  return [
    ...reserved,
    { regex: '^demand-paging(/|$)', message: 'Inside the library import by relative path.' },
  ];
}

/**
 * The import rule of one place, complete: a later block replaces an earlier one, it does not add.
 * @param {string} place a folder (with a slash) or a file below `src`
 * @returns {{ files: string[], rules: import('eslint').Linter.RulesRecord }}
 */
function importRule(place) {
  const folder = place.slice(0, place.indexOf('/'));
  const allowed = LAYERS[folder];
  const forbidden = Object.keys(LAYERS).filter((other) => other !== folder && !allowed.includes(other));
  const patterns = reservedPackages(place);
  patterns.push({
    regex: `^(\\.\\./)+(${forbidden.join('|')})/`,
    message: `Of the other folders src/${folder} imports ${allowed.join(', ') || 'none'}.`,
  });
  if (INDEX_ONLY.includes(folder)) {
    patterns.push({
      regex: `^(\\.\\./)+(${allowed.join('|')})/(?!index\\.js$)`,
      message: `src/${folder} imports other folders through their index.js.`,
    });
  }
  if (NO_BUILTINS.includes(folder)) {
    patterns.push({
      regex: `^(node:|(${builtinModules.join('|')})$)`,
      message: `src/${folder} uses no builtin modules.`,
    });
  }
  return {
    files: [place.endsWith('/') ? `src/${place}**/*.ts` : `src/${place}`],
    rules: { 'no-restricted-imports': ['error', { patterns }] },
  };
}

/**
 * Rules that need types; kept to those that find real faults in asynchronous and branching code.
 * @type {import('eslint').Linter.RulesRecord}
 */
const typeAware = {
  '@typescript-eslint/await-thenable': 'error',
  '@typescript-eslint/no-floating-promises': 'error',
  '@typescript-eslint/no-for-in-array': 'error',
  '@typescript-eslint/no-misused-promises': 'error',
  '@typescript-eslint/only-throw-error': 'error',
  '@typescript-eslint/restrict-plus-operands': 'error',
  '@typescript-eslint/switch-exhaustiveness-check': [
    'error',
    { considerDefaultExhaustiveForUnions: true, requireDefaultForNonUnion: false },
  ],
};

export default tseslint.config(
  { ignores: ['dist/', 'coverage/', '.cache/', 'docs/api/', 'node_modules/', 'fixtures/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  ...tseslint.configs.recommended,
  {
    rules: {
      eqeqeq: 'error',
      'no-console': 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_' },
      ],
    },
  },
  {
    files: ['src/**/*.ts'],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      ...typeAware,
      'max-lines-per-function': ['error', { max: 80, skipBlankLines: true, skipComments: true }],
      'no-restricted-imports': ['error', { patterns: reservedPackages('') }],
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: ['src/api/package-entry.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        { selector: "NewExpression[callee.name='Worker']", message: 'Threads are started by startThread.' },
      ],
    },
  },
  ...Object.keys(LAYERS).map((folder) => importRule(`${folder}/`)),
  ...Object.values(SOLE_IMPORTERS)
    .filter((place) => place.endsWith('.ts'))
    .map(importRule),
  {
    files: ['src/api/events.ts'],
    rules: {
      // A default import of typed-emitter silently becomes `any` for users of NodeNext resolution.
      'no-restricted-syntax': [
        'error',
        {
          selector: "ImportDeclaration[source.value='typed-emitter'] > ImportDefaultSpecifier",
          message: "Write `import type * as TE from 'typed-emitter'` and `TE.default<Events>`.",
        },
      ],
    },
  },
  {
    files: ['src/cli/**/*.ts', 'bench/**', 'examples/**', 'scripts/**', 'test/**/*.mjs'],
    rules: { 'no-console': 'off' },
  },
);
