import { type Coverage, type Requirements } from '../api/index.js';
import { startAccessor, NATIVE_SITES, type NativeSite } from '../accessors/index.js';
import { memoryBackend } from '../backends/memory/index.js';
import {
  measureCoverage,
  userfaultfd,
  type UserfaultfdBackendOptions,
} from '../backends/userfaultfd/index.js';
import { measureModel } from './model-coverage.js';

/** A backend in one of its forms, and how to find out what it covers here. */
export interface CatalogueEntry {
  readonly name: string;
  /** In a few words. */
  readonly about: string;
  probe(): Requirements;
  /** Tries each site that can be tried; rows that could not stay `declared`. Precondition: the requirements are met. */
  measure(): Promise<Coverage>;
}

/** Every backend of this version, the real ones first. */
export const CATALOGUE: readonly CatalogueEntry[] = [
  userfaultfdEntry('userfaultfd', 'private anonymous memory', {}, 'anonymous'),
  userfaultfdEntry('uffd shmem', 'userfaultfd on a memory file', {}, 'shmem'),
  userfaultfdEntry('uffd user', 'userfaultfd with UFFD_USER_MODE_ONLY', { userModeOnly: true }, 'anonymous'),
  userfaultfdEntry('uffd sigbus', 'userfaultfd with UFFD_FEATURE_SIGBUS', { sigbus: true }, 'anonymous'),
  {
    name: 'memory',
    about: 'a model of the kernel in this process, everywhere',
    probe: () => memoryBackend().probe(),
    measure: measureModel,
  },
];

function userfaultfdEntry(
  name: string,
  about: string,
  options: UserfaultfdBackendOptions,
  memory: 'anonymous' | 'shmem',
): CatalogueEntry {
  return {
    name,
    about,
    probe: () => userfaultfd(options).probe(),
    measure: () =>
      measureCoverage({
        backend: options,
        memory,
        sites: NATIVE_SITES,
        start: (site, layout) => startAccessor(site as NativeSite, layout),
      }),
  };
}
