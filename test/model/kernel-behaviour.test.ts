import { describe, expect, test } from 'vitest';
import { DemandPagingError, FLAG, ResolutionBatch, VERB } from 'demand-paging';
import { settle } from 'demand-paging/backends/memory';
import { layoutOf, ModelWorld, PAGE } from './model-world.js';

describe('missing pages', () => {
  test('an access waits until its page is installed, and then reads it', async () => {
    const world = await ModelWorld.attach();
    const access = world.read(2);
    expect(access.state).toBe('blocked');
    expect(world.take()).toEqual(['missing 2']);
    expect(world.copy(2, 7)).toBe('installed 1');
    world.run(access);
    expect([access.state, access.bytes[0]]).toEqual(['done', 7]);
  });

  test('EEXIST leaves the contents and, through the port, wakes whoever waits', async () => {
    const world = await ModelWorld.attach();
    const access = world.read(1);
    expect(world.copy(1, 5, { wake: false })).toBe('installed 1');
    expect(access.state).toBe('blocked');
    expect(world.copy(1, 9)).toBe('already-present 0');
    world.run(access);
    expect([access.state, access.bytes[0]]).toEqual(['done', 5]);
  });

  test('what was done before a page that exists counts', async () => {
    const world = await ModelWorld.attach();
    world.copy(2, 1);
    expect(world.copy(0, 3, { count: 4 })).toBe('already-present 2');
    expect(world.copy(2, 3, { count: 2 })).toBe('already-present 0');
    expect(world.read(2).bytes[0]).toBe(1);
  });

  test('a waiter that is woken takes its unread message with it', async () => {
    const world = await ModelWorld.attach();
    const access = world.read(0);
    world.resolve({ verb: 'wake', pages: { first: 0, count: 1 } });
    expect(world.take()).toEqual([]);
    world.run(access);
    expect(access.state).toBe('blocked');
    expect(world.take()).toEqual(['missing 0']);
  });

  test('faults are read in the order in which they came, as many as fit', async () => {
    const world = await ModelWorld.attach();
    for (const page of [3, 1, 2]) world.read(page);
    expect(world.take(2)).toEqual(['missing 3', 'missing 1']);
    expect(world.take()).toEqual(['missing 2']);
  });

  test('fail lets the waiters fail once and leaves the page missing', async () => {
    const world = await ModelWorld.attach();
    const access = world.read(0);
    expect(world.resolve({ verb: 'fail', pages: { first: 0, count: 1 } })).toBe('installed 1');
    expect([access.state, access.errno]).toEqual(['errored', 14]);
    expect(world.read(0).state).toBe('blocked');
  });

  test('a killed accessor waits no more and its message is gone', async () => {
    const world = await ModelWorld.attach();
    const access = world.read(0);
    access.kill();
    expect([access.state, access.ended]).toEqual(['killed', true]);
    expect(world.take()).toEqual([]);
  });

  test('closing the descriptor lets a waiter read zeros', async () => {
    const world = await ModelWorld.attach();
    const access = world.read(0);
    world.kernel.release();
    world.run(access);
    expect([access.state, access.bytes[0]]).toEqual(['done', 0]);
  });

  test('the process is gone: ESRCH', async () => {
    const world = await ModelWorld.attach();
    world.kernel.end();
    expect(world.copy(0, 1)).toBe('gone 0');
    expect(world.rows.errno[0]).toBe(3);
    expect(() => world.take()).toThrow(DemandPagingError);
  });

  test('an event of an unknown kind is an error', async () => {
    const world = await ModelWorld.attach();
    world.kernel.sendUnknown(0x42);
    expect(() => world.take()).toThrow(expect.objectContaining({ code: 'UNKNOWN_EVENT' }));
  });
});

describe('removal', () => {
  test('a fault is read ahead of the removal that came before it', async () => {
    const world = await ModelWorld.attach();
    const removal = world.kernel.discard({ first: 0, count: 2 });
    removal.step();
    world.read(1);
    expect(world.take()).toEqual(['missing 1', 'remove 0+2']);
  });

  test('every verb but wake is told EAGAIN until the event was read and its thread woke up', async () => {
    const world = await ModelWorld.attach();
    world.kernel.preempt = () => {};
    const removal = world.kernel.discard({ first: 0, count: 1 });
    removal.step();
    expect(removal.runnable).toBe(false);
    expect(world.copy(3, 1)).toBe('again 0');
    expect(world.resolve({ verb: 'zeropage', pages: { first: 3, count: 1 } })).toBe('again 0');
    expect(world.resolve({ verb: 'wake', pages: { first: 3, count: 1 } })).toBe('installed 1');
    world.take();
    expect(world.copy(3, 1)).toBe('again 0');
    removal.step();
    expect(world.copy(3, 1)).toBe('installed 1');
  });

  test('what is installed after the event was read goes with the page', async () => {
    const world = await ModelWorld.attach();
    const removal = world.kernel.discard({ first: 0, count: 1 });
    removal.step();
    world.take();
    removal.step(); // awake, not yet dropped
    expect(world.copy(0, 9)).toBe('installed 1');
    world.run(removal);
    expect(removal.ended).toBe(true);
    expect(world.read(0).state).toBe('blocked');
  });

  test('a page is dropped only after the event was read', async () => {
    const world = await ModelWorld.attach();
    world.copy(0, 4);
    const removal = world.kernel.discard({ first: 0, count: 1 });
    world.run(removal);
    expect(world.read(0).bytes[0]).toBe(4);
    world.take();
    world.run(removal);
    expect(world.read(0).state).toBe('blocked');
  });

  test('hole punching announces nothing', async () => {
    const world = await ModelWorld.attach(4, {}, 'shmem');
    world.copy(0, 4);
    world.run(world.kernel.discard({ first: 0, count: 1 }, 'punch'));
    expect(world.take()).toEqual([]);
    expect(world.read(0).state).toBe('blocked');
  });

  test('a memory that is closed does not keep a removal waiting', async () => {
    const world = await ModelWorld.attach();
    const removal = world.kernel.discard({ first: 0, count: 1 });
    removal.step();
    world.kernel.release();
    await settle(removal);
    expect(removal.ended).toBe(true);
  });
});

describe('other events', () => {
  test('unmapped: accesses fail, verbs are told ENOENT', async () => {
    const world = await ModelWorld.attach();
    const unmap = world.kernel.unmap({ first: 1, count: 1 });
    unmap.step();
    expect(world.read(1).errno).toBe(14);
    world.run(unmap);
    expect(world.take()).toEqual(['unmap 1+1']);
    world.run(unmap);
    expect(world.copy(1, 1)).toBe('gone 0');
    expect(world.rows.errno[0]).toBe(2);
  });

  test('remap and fork are told after the fact', async () => {
    const world = await ModelWorld.attach();
    world.copy(0, 8);
    const remap = world.kernel.remap({ first: 0, count: 4 }, 0x7000);
    world.run(remap);
    const fork = world.kernel.fork();
    world.run(fork);
    expect(world.take()).toEqual(['remap 0+4', 'fork 1']);
    world.run(remap);
    world.run(fork);
    expect([remap.ended, fork.ended]).toEqual([true, true]);
    const child = world.kernel.children.get(1)!;
    const inherited = child.access({ site: 'vmm-load', page: 0, length: 1 });
    inherited.step();
    expect(inherited.bytes[0]).toBe(8);
    child.access({ site: 'vmm-store', page: 0, bytes: Uint8Array.of(1) }).step();
    expect(world.read(0).bytes[0]).toBe(8);
  });
});

describe('shared memory', () => {
  test('a second mapping reads zeros, and the page then exists: EEXIST, and a minor fault', async () => {
    const world = await ModelWorld.attach(4, {}, 'shmem');
    expect([world.read(0, 'external-mapping').state, world.read(0, 'external-mapping').bytes[0]]).toEqual([
      'done',
      0,
    ]);
    expect(world.copy(0, 7)).toBe('already-present 0');
    const access = world.read(0);
    expect(world.take()).toEqual(['minor 0']);
    expect(world.resolve({ verb: 'continue', pages: { first: 0, count: 1 } })).toBe('installed 1');
    world.run(access);
    expect(access.bytes[0]).toBe(0);
  });

  test('continue needs a page in the cache, or brings it', async () => {
    const world = await ModelWorld.attach(4, {}, 'shmem');
    expect(world.resolve({ verb: 'continue', pages: { first: 0, count: 1 } })).toBe('failed 0');
    expect(world.rows.errno[0]).toBe(14);
    world.port.staging.fill(6);
    expect(world.resolve({ verb: 'continue', pages: { first: 0, count: 1 }, from: 0 })).toBe('installed 1');
    expect(world.read(0).bytes[0]).toBe(6);
    world.port.staging.fill(1);
    expect(world.resolve({ verb: 'continue', pages: { first: 0, count: 1 }, from: 0 })).toBe(
      'already-present 0',
    );
    expect(world.read(0).bytes[0]).toBe(6);
  });

  test('MADV_DONTNEED leaves the page cache, MADV_REMOVE does not', async () => {
    const world = await ModelWorld.attach(4, { events: [] }, 'shmem');
    world.copy(0, 5);
    world.run(world.kernel.discard({ first: 0, count: 1 }, 'dontneed'));
    world.read(0);
    expect(world.take()).toEqual(['minor 0']);
    world.run(world.kernel.discard({ first: 0, count: 1 }, 'remove'));
    expect(world.read(0).state).toBe('blocked');
    expect(world.take()).toContain('missing 0');
  });

  test('without minor faults a cached page is mapped without a word', async () => {
    const world = await ModelWorld.attach(4, { minor: false }, 'shmem');
    world.write(0, 9, 'external-mapping');
    expect(world.read(0).bytes[0]).toBe(9);
  });

  test('anonymous memory has no second mapping', async () => {
    const world = await ModelWorld.attach();
    expect(world.read(0, 'external-mapping').errno).toBe(22);
  });
});

describe('protection and poison', () => {
  test('poison: every access fails, nothing can be installed, a removal clears it', async () => {
    const world = await ModelWorld.attach(4, { events: [] });
    const waiting = world.read(0);
    expect(world.resolve({ verb: 'poison', pages: { first: 0, count: 1 } })).toBe('installed 1');
    world.run(waiting);
    expect([waiting.state, waiting.errno]).toEqual(['errored', 133]);
    expect(world.read(0, 'kernel-copy').errno).toBe(14);
    expect(world.take()).toEqual([]);
    expect(world.resolve({ verb: 'zeropage', pages: { first: 0, count: 1 } })).toBe('already-present 0');
    expect(world.resolve({ verb: 'move', pages: { first: 0, count: 1 }, from: 0 })).toBe('already-present 0');
    world.run(world.kernel.discard({ first: 0, count: 1 }));
    expect(world.read(0).state).toBe('blocked');
  });

  test('the kernel copies over poison, on both kinds of memory', async () => {
    for (const memory of ['anonymous', 'shmem'] as const) {
      const world = await ModelWorld.attach(4, {}, memory);
      world.resolve({ verb: 'poison', pages: { first: 0, count: 1 } });
      expect(world.resolve({ verb: 'poison', pages: { first: 0, count: 1 } })).toBe('already-present 0');
      expect(world.copy(0, 1)).toBe('installed 1');
      expect(world.read(0).bytes[0]).toBe(1);
    }
  });

  test('a present page cannot be poisoned', async () => {
    const world = await ModelWorld.attach();
    world.copy(0, 1);
    expect(world.resolve({ verb: 'poison', pages: { first: 0, count: 1 } })).toBe('already-present 0');
  });

  test('write-protected: reads pass, a write waits', async () => {
    const world = await ModelWorld.attach();
    world.copy(0, 3, { protect: true });
    expect(world.read(0).bytes[0]).toBe(3);
    const write = world.write(0, 4);
    expect(write.state).toBe('blocked');
    expect(world.take()).toEqual(['write-protect 0']);
    world.resolve({ verb: 'writeprotect', pages: { first: 0, count: 1 }, protect: false });
    world.run(write);
    expect(world.read(0).bytes[0]).toBe(4);
  });

  test('rw-protected: any access waits, and the contents stay', async () => {
    const world = await ModelWorld.attach();
    world.copy(0, 3);
    world.resolve({ verb: 'rwprotect', pages: { first: 0, count: 1 }, protect: true });
    const read = world.read(0);
    expect(world.take()).toEqual(['rwp 0']);
    world.resolve({ verb: 'rwprotect', pages: { first: 0, count: 1 }, protect: false });
    world.run(read);
    expect(read.bytes[0]).toBe(3);
  });
});

describe('verbs', () => {
  test('move takes the pages out of staging', async () => {
    const world = await ModelWorld.attach();
    world.port.staging.fill(2);
    expect(world.resolve({ verb: 'move', pages: { first: 0, count: 1 }, from: PAGE })).toBe('installed 1');
    expect(world.read(0).bytes[0]).toBe(2);
    expect([world.port.staging[0], world.port.staging[PAGE]]).toEqual([2, 0]);
  });

  test.each([
    ['pages past the end', { verb: 'zeropage', pages: { first: 3, count: 2 } }],
    ['no pages', { verb: 'zeropage', pages: { first: 0, count: 0 } }],
    ['bytes past staging', { verb: 'copy', pages: { first: 0, count: 1 }, from: 3 * PAGE + 1 }],
    ['bytes before staging', { verb: 'copy', pages: { first: 0, count: 1 }, from: -PAGE }],
  ] as const)('%s: failed, and nothing happens', async (_, resolution) => {
    const world = await ModelWorld.attach();
    expect(world.resolve(resolution)).toBe('failed 0');
    expect([0, 1, 2, 3].some((page) => world.port.resident(page))).toBe(false);
  });

  test('bytes by address are refused: nothing here has one', async () => {
    const world = await ModelWorld.attach();
    const rows = new ResolutionBatch(1);
    rows.pushRow(VERB.copy, 0, 1, 0, FLAG.direct);
    world.port.resolve(rows);
    expect(rows.outcomeOf(0)).toBe('refused');
    expect(world.port.resident(0)).toBe(false);
  });

  test('there is no huge zero page', async () => {
    const { memoryBackend } = await import('demand-paging/backends/memory');
    const attachment = await memoryBackend().attach(layoutOf(2, 'hugetlb', 65536));
    expect(attachment.supports.verbs).not.toContain('zeropage');
    expect(attachment.port.staging.length).toBeGreaterThanOrEqual(65536);
  });
});
