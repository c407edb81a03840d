import { describe, expect, test } from 'vitest';
import {
  ACCESS_CLASSES,
  type AccessClass,
  type Backend,
  type MemoryKind,
  openPager,
} from '../../../src/api/index.js';
import { composite } from '../../../src/backends/composite/index.js';
import { guestMemfd } from '../../../src/backends/guest-memfd/index.js';
import { kvmExit } from '../../../src/backends/kvm-exit/index.js';
import { memoryBackend } from '../../../src/backends/memory/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { memory } from '../../../src/sources/index.js';
import { Rig } from './rig.js';

interface Case {
  readonly name: string;
  readonly make: (vm: { readonly vm: number; readonly vcpus: number }) => Backend;
  readonly memory?: MemoryKind;
  /** The classes all of whose accesses are served: each waits for its page, or exits with the fault. */
  readonly serves: readonly AccessClass[];
}

const HERE = ['vcpu', 'kernel', 'vmm'] as const;
// What the guest sees as an abort, a walk where KVM shadows its page tables, is left to the VMM.
const VCPU = ['vcpu'] as const;

const CASES: readonly Case[] = [
  // It claims nothing of other mappings.
  { name: 'the model', make: () => memoryBackend(), serves: HERE },
  { name: 'userfaultfd', make: () => userfaultfd(), serves: ACCESS_CLASSES },
  {
    name: 'userfaultfd, a memory file, which others can map',
    make: () => userfaultfd(),
    memory: 'shmem',
    serves: HERE,
  },
  // A system call of the VMM's fails, and so do KVM, other processes and vhost.
  { name: 'userfaultfd, userModeOnly', make: () => userfaultfd({ userModeOnly: true }), serves: [] },
  {
    name: 'userfaultfd, userModeOnly, a memory file',
    make: () => userfaultfd({ userModeOnly: true }),
    memory: 'shmem',
    serves: [],
  },
  // Private memory cannot be mapped by others, but every other access fails.
  { name: 'userfaultfd, sigbus', make: () => userfaultfd({ sigbus: true }), serves: [] },
  {
    name: 'userfaultfd, sigbus, a memory file',
    make: () => userfaultfd({ sigbus: true }),
    memory: 'shmem',
    serves: [],
  },
  {
    name: 'userfaultfd, sigbus and userModeOnly',
    make: () => userfaultfd({ sigbus: true, userModeOnly: true }),
    serves: [],
  },
  { name: 'kvm-exit', make: (vm) => kvmExit({ ...vm, strategy: 'vacated-slot' }), serves: VCPU },
  {
    name: 'kvm-exit, memslot-hole',
    make: (vm) => kvmExit({ ...vm, strategy: 'memslot-hole' }),
    serves: [],
  },
  { name: 'composite', make: (vm) => composite({ ...vm, strategy: 'vacated-slot' }), serves: ACCESS_CLASSES },
  {
    name: 'composite, a memory file',
    make: (vm) => composite({ ...vm, strategy: 'vacated-slot' }),
    memory: 'shmem',
    serves: HERE,
  },
  // Through a hole KVM itself meets no memory.
  {
    name: 'composite, memslot-hole',
    make: (vm) => composite({ ...vm, strategy: 'memslot-hole' }),
    serves: ['vmm', 'external'],
  },
  { name: 'guest-memfd', make: (vm) => guestMemfd(vm), memory: 'guest-memfd', serves: HERE },
];

const PAGES = 4;

describe('openPager with needs: opens only if every access of these classes is served', () => {
  test.for(CASES)('$name', async ({ make, memory: kind = 'anonymous', serves }, context) => {
    const served = new Map<AccessClass, string>();
    for (const need of ACCESS_CLASSES) {
      using rig = Rig.open(context);
      const backend = make({ vm: rig.vm.fd, vcpus: 1 });
      const lack = backend.probe().list.find(({ met }) => !met);
      if (lack) return context.skip(`${lack.what}: ${lack.found}`);
      const pager = openPager({
        backend,
        regions: [rig.region(PAGES, 4096, kind)],
        source: memory(new SharedArrayBuffer(PAGES * 4096)),
        needs: [need],
      });
      const end = await pager.then(
        async (opened) => (await opened.close(), 'opened'),
        (error: Error & { code?: string }) => error.code ?? String(error),
      );
      served.set(need, end);
    }
    expect(Object.fromEntries(served)).toEqual(
      Object.fromEntries(
        ACCESS_CLASSES.map((need) => [need, serves.includes(need) ? 'opened' : 'COVERAGE_GAP']),
      ),
    );
  });

  test('a class is not served: the error names the sites, the effects and a remedy', async () => {
    const opened = openPager({
      backend: userfaultfd({ userModeOnly: true }),
      regions: [
        { gpa: 0n as never, length: 4096n, sourceOffset: 0n as never, memory: 'anonymous', pageSize: 4096 },
      ],
      source: memory(new SharedArrayBuffer(4096)),
      needs: ['vmm'],
    });
    await expect(opened).rejects.toMatchObject({
      code: 'COVERAGE_GAP',
      message: expect.stringContaining('does not serve accesses of vmm-syscall (errors)') as string,
      hint: expect.stringContaining('out of `needs`') as string,
    });
  });
});
