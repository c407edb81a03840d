import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MemoryLayout, type MemoryKind, type Verb } from '../../../src/api/index.js';
import { type UserfaultfdBackendOptions } from '../../../src/backends/userfaultfd/index.js';
import { REPLAY, RUNS_FACTOR } from '../../conformance/runs.js';
import { region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { type Alphabet, difference, histories, PAGES } from './history.js';
import { ModelWorld } from './model-world.js';
import { Crew, UserfaultfdWorld } from './userfaultfd-world.js';

skipWithoutUserfaultfd();

const RUNS = 400;
const LOADS = ['vmm-load', 'vmm-store', 'external-vm-readv', 'vmm-syscall'] as const;
const SHARED = [...LOADS, 'external-mapping'] as const;
/** Where pages are poisoned a plain access would end the process; the kernel's on its behalf say EFAULT. */
const COPIES = ['external-vm-readv', 'vmm-syscall'] as const;

interface Kind {
  readonly name: string;
  readonly memory: MemoryKind;
  readonly options: UserfaultfdBackendOptions;
  readonly alphabet: Alphabet;
}

const alphabet = (sites: Alphabet['sites'], verbs: readonly Verb[], drops: Alphabet['drops']): Alphabet => ({
  sites,
  verbs: [...verbs, 'wake'],
  drops,
});

const KINDS: readonly Kind[] = [
  {
    name: 'anonymous',
    memory: 'anonymous',
    options: {},
    alphabet: alphabet(LOADS, ['copy', 'zeropage', 'move'], ['dontneed']),
  },
  {
    name: 'anonymous, poisoned at times',
    memory: 'anonymous',
    options: {},
    alphabet: alphabet(COPIES, ['copy', 'zeropage', 'poison'], ['dontneed']),
  },
  {
    name: 'anonymous, write-protected at times',
    memory: 'anonymous',
    options: { faults: ['missing', 'write-protect'] },
    alphabet: alphabet(LOADS, ['copy', 'zeropage', 'writeprotect'], ['dontneed']),
  },
  {
    name: 'shmem',
    memory: 'shmem',
    options: {},
    alphabet: alphabet(SHARED, ['copy', 'zeropage'], ['dontneed', 'remove', 'punch']),
  },
  {
    name: 'shmem with minor faults',
    memory: 'shmem',
    options: { install: 'continue' },
    alphabet: alphabet(SHARED, ['copy', 'zeropage', 'continue'], ['dontneed', 'remove', 'punch']),
  },
  {
    name: 'shmem with minor faults, poisoned at times',
    memory: 'shmem',
    options: { install: 'continue' },
    alphabet: alphabet(
      [...COPIES, 'external-mapping'],
      ['copy', 'continue', 'poison'],
      ['dontneed', 'remove', 'punch'],
    ),
  },
  {
    name: 'shmem, write-protected at times',
    memory: 'shmem',
    options: { faults: ['missing', 'write-protect'] },
    alphabet: alphabet(SHARED, ['copy', 'zeropage', 'writeprotect'], ['dontneed', 'remove', 'punch']),
  },
  {
    name: 'shmem with minor faults, write-protected at times',
    memory: 'shmem',
    options: { install: 'continue', faults: ['missing', 'minor', 'write-protect'] },
    alphabet: alphabet(SHARED, ['copy', 'continue', 'writeprotect'], ['dontneed', 'remove', 'punch']),
  },
  {
    name: 'shmem, poisoned and write-protected at times',
    memory: 'shmem',
    options: { faults: ['missing', 'write-protect'] },
    alphabet: alphabet(
      [...COPIES, 'external-mapping'],
      ['copy', 'poison', 'writeprotect'],
      ['dontneed', 'remove', 'punch'],
    ),
  },
  {
    name: 'anonymous, poisoned and write-protected at times',
    memory: 'anonymous',
    options: { faults: ['missing', 'write-protect'] },
    alphabet: alphabet(COPIES, ['copy', 'zeropage', 'poison', 'writeprotect'], ['dontneed']),
  },
];

let crew: Crew;
beforeAll(async () => void (crew = await Crew.start()));
afterAll(() => crew[Symbol.asyncDispose]());

test.each(KINDS)(
  'the model of userfaultfd does what this kernel does: $name',
  async ({ memory, options, alphabet }) => {
    await fc.assert(
      fc.asyncProperty(histories(alphabet), async (history) => {
        const layout = (): MemoryLayout => new MemoryLayout([region(PAGES, memory)]);
        const model = await ModelWorld.open(layout(), {
          install: options.install ?? 'copy',
          minor: options.install === 'continue',
        });
        const machine = await UserfaultfdWorld.open(layout(), options, crew);
        expect(await difference(model, machine, history, alphabet)).toBeUndefined();
      }),
      { numRuns: RUNS * RUNS_FACTOR, ...REPLAY },
    );
  },
  120_000 * RUNS_FACTOR,
);
