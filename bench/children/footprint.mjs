// Prints, as JSON, what this process holds after it did what its argument says: `bare`: nothing;
// `ffi`: loaded the native library; `pager`: opened a pager over a region of that many bytes, which is
// then closed. Memory of the region itself would show in the size, and is checked not to.
import { readFileSync } from 'node:fs';

const [what, length] = process.argv.slice(2);

/** @returns {Record<string, number>} bytes */
function sizes() {
  const status = readFileSync('/proc/self/status', 'utf8');
  const of = (/** @type {string} */ name) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
  return { resident: of('VmRSS'), anonymous: of('RssAnon'), file: of('RssFile'), shared: of('RssShmem') };
}

if (what === 'ffi') (await import('demand-paging/linux')).libc().getpid();
if (what === 'pager') {
  const { openPager, gpa, fileOffset } = await import('demand-paging');
  const { userfaultfd } = await import('demand-paging/backends/userfaultfd');
  const { zero } = await import('demand-paging/sources');
  const region = {
    gpa: gpa(0n),
    length: BigInt(length ?? 0),
    sourceOffset: fileOffset(0n),
    memory: /** @type {const} */ ('anonymous'),
    pageSize: 4096,
  };
  const pager = await openPager({ backend: userfaultfd(), regions: [region], source: zero(Number(length)) });
  // One page from each gibibyte, so that the resolver and its states were in use.
  const probes = Array.from({ length: Number(length) / 2 ** 30 }, (_, i) => ({
    start: gpa(BigInt(i) << 30n),
    length: 4096n,
  }));
  await pager.ensure(probes);
  const open = sizes();
  const { pageCount } = pager.layout;
  await pager.close();
  console.log(JSON.stringify({ ...open, pageCount, served: probes.length }));
} else console.log(JSON.stringify(sizes()));
