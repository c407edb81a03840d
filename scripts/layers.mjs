// @ts-check
// Which folder of `src` may import which: the one table behind the lint rule and the package test.
// A folder may always import its own files; a backend does not import another backend.

/** @type {Readonly<Record<string, readonly string[]>>} folder, then the folders it may import */
export const LAYERS = {
  api: [],
  linux: ['api'],
  arm64: ['api'],
  conformance: ['api'],
  kvm: ['api', 'linux', 'arm64'],
  backends: ['api', 'linux', 'kvm'],
  sources: ['api', 'linux'],
  accessors: ['api', 'linux'],
  guests: ['api', 'linux', 'kvm', 'backends', 'accessors', 'conformance'],
  prototypes: ['api', 'linux', 'backends', 'sources', 'arm64', 'conformance'],
  scenarios: ['api', 'backends', 'sources', 'arm64', 'conformance', 'prototypes'],
  cli: [
    'api',
    'linux',
    'backends',
    'sources',
    'arm64',
    'accessors',
    'conformance',
    'guests',
    'prototypes',
    'scenarios',
  ],
};

/** Folders that are reached only through the entry of the folder they import. */
export const INDEX_ONLY = ['arm64', 'conformance'];

/** Folders without any builtin of the host: they run wherever JavaScript does. */
export const NO_BUILTINS = ['arm64'];

/** Packages that exactly one place may import, and that place: a folder or a file below `src`. */
export const SOLE_IMPORTERS = {
  koffi: 'linux/',
  'typed-emitter': 'api/events.ts',
};
