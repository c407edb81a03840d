import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, type TestContext } from 'vitest';
import { takeCensus } from '../../../lab/census/accesses.js';
import { GuestPages } from '../../../lab/census/guest-pages.js';
import { parseTrace, type TraceEvent } from '../../../lab/census/trace-event.js';
import { WAIT } from '../../../lab/census/watched.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { imageOf, LOW, PAGED, pagerOver, Rig } from './rig.js';

/*
 * The census of docs/census.md on this host. Where its kernel has no kprobes, what it does have is the trace
 * event of a page fault in the kernel, with its stack: that shows the copies and walks that meet a missing
 * page, not the functions that pin one, which fault without an exception.
 */
const TRACEFS = '/sys/kernel/tracing';
const PAGE_FAULT = 'events/exceptions/page_fault_kernel';
const PAGE = 4096;

/** The tracefs of this host, mounted for as long as it is needed if it is not mounted. */
class Tracefs implements Disposable {
  private constructor(
    readonly folder: string,
    readonly own: boolean,
  ) {}

  static open(context: TestContext): Tracefs {
    if (existsSync(join(TRACEFS, PAGE_FAULT))) return new Tracefs(TRACEFS, false);
    const folder = mkdtempSync(join(tmpdir(), 'tracefs-'));
    const { status, stderr } = spawnSync('mount', ['-t', 'tracefs', 'none', folder], { encoding: 'utf8' });
    if (status !== 0) {
      rmdirSync(folder);
      context.skip(`tracefs is not mounted here and cannot be: ${(stderr ?? '').trim()}`);
    }
    const tracefs = new Tracefs(folder, true);
    if (existsSync(join(folder, PAGE_FAULT))) return tracefs;
    tracefs[Symbol.dispose]();
    return context.skip('this kernel has no trace events of page faults');
  }

  [Symbol.dispose](): void {
    if (!this.own) return;
    expect(spawnSync('umount', [this.folder]).status).toBe(0);
    rmdirSync(this.folder);
  }
}

/** Traces page faults in the kernel while `body` runs. Skips the test where this host does not let it. */
async function pageFaults(
  context: TestContext,
  body: () => Promise<void> | void,
): Promise<readonly TraceEvent[]> {
  using tracefs = Tracefs.open(context);
  const instance = join(tracefs.folder, 'instances/host-census');
  try {
    mkdirSync(instance, { recursive: true });
  } catch (error) {
    return context.skip(`no trace instance can be made: ${(error as Error).message}`);
  }
  const set = (file: string, value: string): void => writeFileSync(join(instance, file), value);
  try {
    set('options/stacktrace', '1');
    set(`${PAGE_FAULT}/enable`, '1');
    await body();
    set(`${PAGE_FAULT}/enable`, '0');
    const { events, lost } = parseTrace(readFileSync(join(instance, 'trace'), 'utf8'));
    expect(lost).toBe(0);
    return events;
  } finally {
    rmdirSync(instance);
  }
}

/** A page fault in the kernel as the census knows it: where an access waits for a page. */
function asWait(event: TraceEvent): TraceEvent {
  const write = Number(event.fields.get('error_code')) & 2;
  return { ...event, name: WAIT, fields: new Map([...event.fields, ['flags', write === 0 ? '0' : '1']]) };
}

test("census: KVM walks a guest's page tables with a missing page: waits in userfaultfd", async (context) => {
  using rig = Rig.open(context);
  const image = imageOf(16);
  const { pager } = await pagerOver(userfaultfd(), [rig.region(16)], image, { needs: ['kernel'] });
  try {
    const [region] = pager.layout.regions;
    const slot = { gpa: PAGED, length: 16 * PAGE, userspace: Number(region!.hva) };
    rig.vm.setSlot({ slot: 1, ...slot });
    const vcpu = rig.vcpu(0, {}, { code: LOW.code, tables: PAGED });
    const events = await pageFaults(context, () => {
      expect(vcpu.translate(0x1234n)).toMatchObject({ valid: true, gpa: 0x1234n });
    });
    const { accesses, touched } = takeCensus(events.map(asWait), new GuestPages([slot], PAGE));
    expect(touched.map(({ page }) => (page - PAGED) / PAGE)).toEqual([0, 1, 2]);
    expect(accesses).toMatchObject([{ context: 'vCPU ioctl', operation: 'touch', count: 3, waited: 3 }]);
    expect(accesses[0]!.site).toMatch(/walk_addr/);
  } finally {
    await pager.close({ missing: 'leave' });
  }
});
