import { expect, test } from 'vitest';
import { gpa, hva, openPager } from '../../../src/api/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { mapMemory } from '../../../src/linux/index.js';
import { PAGE, region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { contents, pages, PAGES } from './guest.js';

skipWithoutUserfaultfd();

test.each(['anonymous', 'shmem'] as const)(
  "%s memory of the VMM's own whose file it does not name is discarded to be fetched again, not to be zeros",
  async (memory) => {
    using mapping = mapMemory({ kind: memory, length: PAGES * PAGE });
    const pager = await openPager({
      backend: userfaultfd(),
      regions: [region(PAGES, memory, { hva: hva(mapping.address) })],
      source: {
        module: new URL('./fixtures/source.mjs', import.meta.url).href,
        export: 'open',
        options: { length: PAGES * PAGE },
      },
      policy: { faultAroundPages: 1 },
    });
    const removed: unknown[] = [];
    pager.on('removed', (range) => removed.push(range));
    await pager.ensure(pages(0, 8));
    await pager.discard(pages(2, 4), { then: 'refetch' });
    expect(pager.states.stateOf(3)).toBe('missing');
    expect(pager.memory!.readBlocking(gpa(3 * PAGE), 1)).toEqual(Uint8Array.of(contents(3)));
    await pager.discard(pages(4, 2), { then: 'zero' });
    expect(pager.memory!.readBlocking(gpa(4 * PAGE), 1)).toEqual(Uint8Array.of(0));
    expect(removed).toEqual([{ first: 4, count: 2 }]);
    await pager.close();
  },
);
