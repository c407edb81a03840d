import { describe, expect, test } from 'vitest';
import { FaultBatch, ResolutionBatch, type Verb } from 'demand-paging';
import {
  asyncPf,
  fileUffd,
  kvmUserfault,
  presentBitmap,
  type UapiAttachment,
  type UapiBackend,
} from 'demand-paging/prototypes';
import { type KernelEvent, type ModelAccess } from 'demand-paging/backends/memory';
import { onePage } from './one-page.js';

const PAGE_BYTES = 4096;

/** A prototype with hands on both sides of it. */
async function bench(backend: UapiBackend, pages = 4, memory: 'anonymous' | 'shmem' = 'anonymous') {
  const attachment: UapiAttachment = await backend.attach(onePage(memory, pages));
  const { kernel, port } = attachment;
  const log: KernelEvent[] = [];
  kernel.trace = (event) => log.push(event);
  return {
    kernel,
    log,
    /** Steps an access until it ends or waits. */
    go: (access: ModelAccess): ModelAccess => {
      for (let step = 0; access.runnable && step < 10; step++) access.step();
      return access;
    },
    resolve: (verb: Verb, page: number, protect = false): string => {
      port.staging.fill(page + 1, 0, PAGE_BYTES);
      const batch = new ResolutionBatch(1);
      const pages = { first: page, count: 1 };
      batch.push(
        verb === 'copy'
          ? { verb, pages, from: 0 }
          : verb === 'rwprotect'
            ? { verb, pages, protect }
            : { verb: 'wake', pages },
      );
      port.resolve(batch);
      return batch.outcomeOf(0);
    },
    faults: () => {
      const batch = new FaultBatch(8);
      port.take(batch);
      return Array.from({ length: batch.count }, (_, row) => batch.fault(row));
    },
  };
}

describe('present-bitmap', () => {
  test('(c) and (d): a vCPU exits with its number, KVM waits at the choke point, and both are told apart', async () => {
    const { kernel, go, faults, resolve } = await bench(presentBitmap.backend());
    const vcpu = go(kernel.access({ site: 'vcpu-load', page: 1, vcpu: 3 }));
    const own = go(kernel.access({ site: 'kernel-copy', page: 1 }));
    expect([vcpu.exits, own.exits]).toEqual([1, 0]);
    expect(faults()).toMatchObject([
      { page: 1, class: 'vcpu', vcpu: 3 },
      { page: 1, class: 'kernel', site: 'kernel-copy', vcpu: undefined },
    ]);
    expect(resolve('copy', 1)).toBe('installed');
    expect([go(vcpu).state, go(own).state, own.bytes[0]]).toEqual(['done', 'done', 2]);
  });

  test('(e): a block is mapped huge with its last page, and split when one is marked non-present', async () => {
    const { log, resolve } = await bench(presentBitmap.backend({ blockPages: 2 }));
    const collapses = (): number => log.filter(({ kind }) => kind === 'mapped-as-block').length;
    resolve('copy', 2);
    expect(collapses()).toBe(0);
    resolve('copy', 3);
    expect(log.at(-1)).toMatchObject({ actor: { kind: 'kvm' }, kind: 'mapped-as-block', page: 2 });
    resolve('rwprotect', 3, true);
    resolve('rwprotect', 3, false);
    expect(collapses()).toBe(2);
  });
});

describe('kvm-userfault', () => {
  test("KVM's own access reads what is there, while the bit is set", async () => {
    const { kernel, go, faults } = await bench(kvmUserfault.backend());
    const own = go(kernel.access({ site: 'kernel-copy', page: 0 }));
    expect([own.state, own.bytes.every((byte) => byte === 0), faults().length]).toEqual(['done', true, 0]);
  });

  test.each([
    ['nothing', 'done'],
    ['toggle', 'blocked'],
  ] as const)('a bit set late, and %s: a mapped page is %s', async (lateSet, state) => {
    const { kernel, go, resolve } = await bench(kvmUserfault.backend({ lateSet }));
    resolve('copy', 0);
    go(kernel.access({ site: 'vcpu-load', page: 0 }));
    resolve('rwprotect', 0, true);
    expect(go(kernel.access({ site: 'vcpu-load', page: 0 })).state).toBe(state);
  });

  test('an unreadable bitmap is a bare EFAULT, and no fault is delivered', async () => {
    const { kernel, go, faults } = await bench(kvmUserfault.backend({ bitmap: 'unreadable' }));
    const vcpu = go(kernel.access({ site: 'vcpu-load', page: 0 }));
    expect([vcpu.state, vcpu.errno, vcpu.exits, faults().length]).toEqual(['errored', 14, 0, 0]);
  });

  test('beside a userfaultfd both must be satisfied, and EEXIST from the one does not hide the other', async () => {
    const { kernel, go, faults, resolve } = await bench(kvmUserfault.backend({ userfaultfd: true }));
    kernel.memory.install(0, new Uint8Array(PAGE_BYTES).fill(9), false); // another thread's UFFDIO_COPY
    const vcpu = go(kernel.access({ site: 'vcpu-load', page: 0 }));
    expect([vcpu.state, faults().length]).toEqual(['blocked', 1]);
    expect(resolve('copy', 0)).toBe('already-present');
    expect([go(vcpu).state, vcpu.bytes[0]]).toEqual(['done', 9]);
  });
});

describe('async-pf', () => {
  test('the ring: nothing exits until it is full; completed entries are free again', async () => {
    const { kernel, go, resolve } = await bench(asyncPf.backend({ mode: 'ring', ringEntries: 2 }));
    const load = (page: number, vcpu = 0): ModelAccess =>
      go(kernel.access({ site: 'vcpu-load', page, vcpu }));
    expect([load(0), load(1), load(2), load(2, 1)].map(({ exits }) => exits)).toEqual([0, 0, 1, 0]);
    resolve('copy', 0);
    expect(load(3).exits).toBe(0);
  });

  test('a page that is ready before its token is accepted ends the wait', async () => {
    const { kernel, go, resolve } = await bench(asyncPf.backend());
    const access = kernel.access({ site: 'vcpu-load', page: 0 });
    access.step();
    expect(access.state).toBe('exited');
    resolve('copy', 0);
    expect(go(access).state).toBe('done');
  });

  test('or, the ready dropped, does not', async () => {
    const { kernel, go, resolve } = await bench(asyncPf.backend({ earlyReady: 'dropped' }));
    const access = kernel.access({ site: 'vcpu-load', page: 0 });
    access.step();
    resolve('copy', 0);
    expect(go(access).state).toBe('blocked');
  });
});

describe('file-uffd', () => {
  test('a fault is the file’s, through whichever mapping; inserted once, it is there for all', async () => {
    const { kernel, go, faults, resolve } = await bench(fileUffd.backend(), 4, 'shmem');
    const sites = ['external-mapping', 'vcpu-load', 'kernel-copy', 'external-vhost', 'vmm-load'] as const;
    const waiting = sites.map((site) => go(kernel.access({ site, page: 2 })));
    expect(waiting.map(({ state }) => state)).toEqual(sites.map(() => 'blocked'));
    expect(faults().map(({ page }) => page)).toEqual([2, 2, 2, 2, 2]);
    expect(resolve('copy', 2)).toBe('installed');
    expect(waiting.map((access) => [go(access).state, access.bytes[0]])).toEqual(
      sites.map(() => ['done', 3]),
    );
    expect(resolve('copy', 2)).toBe('already-present');
  });
});
