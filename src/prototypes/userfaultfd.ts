import { type Verb } from '../api/index.js';
import { blocking, watchedSites } from '../backends/memory/index.js';
import { type UapiDefinition } from './definition.js';
import { defineUapi } from './uapi.js';

/** Nothing is left open. */
export type UserfaultfdModelOptions = Record<never, never>;

const VERBS: readonly Verb[] = ['copy', 'zeropage', 'continue', 'move', 'poison', 'writeprotect', 'wake'];

const definition = (verbs: readonly Verb[]): UapiDefinition<UserfaultfdModelOptions> => ({
  name: 'userfaultfd',
  source: {
    title: 'userfaultfd(2)',
    author: 'Andrea Arcangeli and others',
    date: '2015 to 2026',
    reference: 'include/uapi/linux/userfaultfd.h',
    status: 'in Linux',
  },
  verbs,
  events: ['remove', 'unmap', 'remap', 'fork'],
  defaults: {},
  // It intercepts the VMM's mapping, and so all accesses that go through that: KVM's own, too.
  kernelSide: () => ({ sites: watchedSites(() => blocking()) }),
});

/**
 * The model of what is real: userfaultfd(2) on the VMM's mapping, as Linux 6.18 has it. Another process's own
 * mapping of the same memory is not watched.
 *
 * Source: userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst.
 */
export const userfaultfdModel = defineUapi(definition(VERBS));

/** {@link userfaultfdModel} with RWP, as Linux 7.3 has it: present pages can be made to fault without losing their contents. */
export const userfaultfdRwpModel = defineUapi({
  ...definition([...VERBS, 'rwprotect']),
  name: 'userfaultfd-rwp',
});
