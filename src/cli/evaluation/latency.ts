import { fileOffset, gpa, openPager, type Pager } from '../../api/index.js';
import { type Accessor, NATIVE_SITES, type NativeSite, startAccessor } from '../../accessors/index.js';
import { userfaultfd } from '../../backends/userfaultfd/index.js';
import { pageSize } from '../../linux/index.js';
import { memory } from '../../sources/index.js';

/** One access to a page that was missing. */
export interface FaultSample {
  readonly site: NativeSite;
  readonly page: number;
  /** Since the first access, in milliseconds. */
  readonly at_ms: number;
  /** What the access took, where it was made, in microseconds. */
  readonly took_us: number;
}

/** Pages that each site touches, one after the other. */
const PAGES_A_SITE = 200;
const GUEST_BASE = 0x1_0000_0000n;
/** Stores are walks that write each page back, and take longer for another reason. */
const SITES = NATIVE_SITES.filter((site) => site !== 'vmm-store');

/**
 * What a missing page costs on this host: accessors of each site that can be exercised, all at once, each with pages of
 * its own, served by userfaultfd from memory. Precondition: the requirements of userfaultfd are met. Errors: as
 * {@link openPager} and {@link startAccessor}; then nothing is left behind.
 */
export async function measureFaults(): Promise<readonly FaultSample[]> {
  const bytes = pageSize();
  const pages = PAGES_A_SITE * SITES.length;
  const pager = await openPager({
    backend: userfaultfd(),
    regions: [
      {
        gpa: gpa(GUEST_BASE),
        length: BigInt(pages * bytes),
        sourceOffset: fileOffset(0),
        memory: 'anonymous',
        pageSize: bytes,
      },
    ],
    source: memory(new SharedArrayBuffer(pages * bytes)),
    needs: [],
    policy: { faultAroundPages: 1 },
  });
  try {
    return await touchAll(pager);
  } finally {
    await pager.close({ missing: 'leave' }); // no accessor is left
  }
}

async function touchAll({ layout }: Pager): Promise<FaultSample[]> {
  const accessors: Accessor[] = [];
  try {
    for (const site of SITES) accessors.push(await startAccessor(site, layout));
    const started = performance.now();
    const samples = await Promise.all(accessors.map((accessor, at) => touchOwn(accessor, at, started)));
    return samples.flat();
  } finally {
    for (const accessor of accessors) await accessor.stop();
  }
}

async function touchOwn(accessor: Accessor, at: number, started: number): Promise<FaultSample[]> {
  const samples: FaultSample[] = [];
  for (let page = at * PAGES_A_SITE; page < (at + 1) * PAGES_A_SITE; page++) {
    const { slowest_ms } = await accessor.walk({
      pages: [{ first: page, count: 1 }],
      order: 'sequential',
      seed: 0,
    });
    const at_ms = performance.now() - started;
    samples.push({ site: accessor.site as NativeSite, page, at_ms, took_us: slowest_ms * 1000 });
  }
  return samples;
}
