import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { fileOffset, gpa, openPager } from 'demand-paging';
import { startAccessor } from 'demand-paging/accessors';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { MemoryFile } from '../histories/subjects.js';

const PAGE = 4096;
const PAGES = 8;

describe('userfaultfd, continue: a page of the page cache that no access has mapped', () => {
  test('is read after its resolver has died; a page that is not there fails', async () => {
    using file = new MemoryFile(PAGES * PAGE);
    const control = new Int32Array(new SharedArrayBuffer(4));
    const pager = await openPager({
      backend: userfaultfd({ install: 'continue' }),
      regions: [
        {
          gpa: gpa(0),
          length: BigInt(PAGES * PAGE),
          sourceOffset: fileOffset(0),
          memory: 'shmem',
          pageSize: PAGE,
          file: { fd: file.fd, offset: fileOffset(0) },
        },
      ],
      source: {
        module: new URL('../histories/fixtures/source.mjs', import.meta.url).href,
        export: 'open',
        options: { length: PAGES * PAGE, synchronous: true, control: control.buffer },
      },
      policy: { faultAroundPages: 1 },
    });
    const accessor = await startAccessor('kernel-copy', pager.layout);
    writeSync(file.fd, Buffer.alloc(PAGE, 'marked'), 0, PAGE, 3 * PAGE);
    await pager.markPresent([{ start: gpa(3 * PAGE), length: BigInt(PAGE) }]);
    const stopped = once(pager as never, 'stopped');
    Atomics.store(control, 0, 1);
    await expect(pager.ensure([{ start: gpa(0), length: 1n }])).rejects.toThrow();
    await stopped;
    const marked = await accessor.access({ page: 3, length: 6 });
    expect(marked.ok && Buffer.from(marked.bytes).toString()).toBe('marked');
    expect(await accessor.access({ page: 5, length: 6 })).toMatchObject({ ok: false });
    await accessor.stop();
    await pager.close();
  });
});
