import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type Access, takeCensus } from '../../lab/census/accesses.js';
import { differenceOf } from '../../lab/census/difference.js';
import { GuestPages } from '../../lab/census/guest-pages.js';
import { mechanismOf, rowOf, sumAccesses } from '../../lab/census/table.js';
import { parseTrace, type TraceEvent } from '../../lab/census/trace-event.js';
import { isPassage, probesFor } from '../../lab/census/watched.js';
import { ROOT } from '../../scripts/entries.mjs';

const fixture = (name: string): string => readFileSync(join(ROOT, 'test/lab/fixtures', name), 'utf8');

/** The memory of the recorded run on each kernel. */
const RECORDED = [
  { file: 'restore-7.3.trace', userspace: 0xffff_9ac0_0000, site: 'vgic_its_restore_tables_v0' },
  { file: 'restore-6.12.trace', userspace: 0xffff_88e0_0000, site: 'vgic_its_restore_tables_v0' },
];

const slot = { gpa: 0x8000_0000, length: 1 << 24, userspace: 0x7f00_0000_0000 };
const pages = new GuestPages([slot], 4096);

const DEVICE = ['vgic_its_set_attr', 'kvm_device_ioctl', '__arm64_sys_ioctl', 'el0_svc'];
const FAULT = ['__handle_mm_fault', 'handle_mm_fault', 'do_page_fault', 'el1_abort', 'el1h_64_sync'];

function event(
  name: string,
  fields: Readonly<Record<string, string | number>>,
  stack: readonly string[],
  more: Partial<TraceEvent> = {},
): TraceEvent {
  const texts = Object.entries(fields).map(([field, value]): [string, string] => [field, String(value)]);
  return {
    thread: 1,
    cpu: 0,
    seconds: 1,
    name,
    text: '',
    fields: new Map(texts),
    stack: [name, ...stack],
    ...more,
  };
}

const read = (gpa: number, site = 'restore_cte', thread = 1): TraceEvent =>
  event('kvm_read_guest', { gpa, length: 8 }, [site, ...DEVICE], { thread });
const waitIn = (gpa: number, stack: readonly string[], flags = 0x214, thread = 1): TraceEvent =>
  event('handle_userfault', { address: gpa - slot.gpa + slot.userspace, flags }, [...FAULT, ...stack], {
    thread,
  });
const waitOfRead = (gpa: number, site = 'restore_cte', thread = 1): TraceEvent =>
  waitIn(gpa, ['__arch_copy_from_user', 'kvm_read_guest', site, ...DEVICE], 0x214, thread);

const only = (events: readonly TraceEvent[], resident?: ReadonlySet<number>): Access => {
  const { accesses } = takeCensus(events, pages, resident);
  expect(accesses).toHaveLength(1);
  return accesses[0]!;
};

test.each(RECORDED)('a recorded trace, $file', ({ file, userspace, site }) => {
  const { events, lost } = parseTrace(fixture(file));
  expect(lost).toBe(0);
  expect(events.map(({ name }) => name).slice(0, 4)).toEqual([
    'kvm_read_guest',
    'gfn_to_memslot',
    'handle_userfault',
    'kvm_is_visible_gfn',
  ]);
  // The unwinder does not see who called a function that has just begun: the probe does.
  expect(events[0]!.stack.slice(0, 4)).toEqual([
    'kvm_read_guest',
    'vgic_its_restore_tables_v0',
    'vgic_its_set_attr',
    'kvm_device_ioctl',
  ]);
  const census = takeCensus(events, new GuestPages([{ ...slot, userspace }], 4096));
  expect(census.touched).toEqual([
    { page: 0x8005_0000, kind: 'R' },
    { page: 0x8006_0000, kind: 'R' },
  ]);
  const collections = census.accesses.find((access) => access.site === site && access.operation === 'read');
  expect(collections).toMatchObject({
    context: 'device ioctl',
    via: 'kvm_read_guest',
    waited: 1,
    slipped: 0,
  });
  expect(census.accesses.filter(({ operation }) => operation === 'look up')).toMatchObject([
    { site: 'vgic_its_check_id', via: 'kvm_is_visible_gfn' },
  ]);
});

test('entries that the buffer lost are counted', () => {
  const text = '# entries-in-buffer/entries-written: 10/25   #P:2\nCPU:1 [LOST 3 EVENTS]\n';
  expect(parseTrace(text).lost).toBe(18);
});

test('a stack belongs to the event of its own thread', () => {
  const line = (thread: number, cpu: number, what: string): string =>
    `          node-${thread}   [00${cpu}] d....     1.000001: ${what}\n`;
  const { events } = parseTrace(
    line(7, 0, 'kvm_read_guest: (kvm_read_guest+0x0/0x1) gpa=0x1000') +
      line(8, 1, 'kvm_userspace_exit: reason KVM_EXIT_MMIO (6)') +
      line(7, 0, '<stack trace>') +
      ' => kvm_read_guest\n => kvm_vm_ioctl\n',
  );
  expect(events.map(({ thread, stack }) => ({ thread, stack }))).toEqual([
    { thread: 7, stack: ['kvm_read_guest', 'kvm_vm_ioctl'] },
    { thread: 8, stack: [] },
  ]);
});

test('a task whose name has spaces and dashes', () => {
  const { events } = parseTrace('   DelayedTaskSche-a b-42      [001] ..... 12.5: gfn_to_hva: (x) gfn=0x3\n');
  expect(events[0]).toMatchObject({ thread: 42, cpu: 1, seconds: 12.5, name: 'gfn_to_hva' });
});

test('an access that waits for its page, and the next one that finds it', () => {
  const gpa = 0x8000_1000;
  const access = only([read(gpa), waitOfRead(gpa), read(gpa + 8)]);
  expect(access).toMatchObject({ count: 2, waited: 1, slipped: 0, site: 'restore_cte' });
  expect(mechanismOf(access)).toBe('userfaultfd');
});

test('an access to a missing page that nothing catches', () => {
  expect(mechanismOf(only([read(0x8000_1000), read(0x8000_1000)]))).toBe('none');
  expect(only([read(0x8000_1000), read(0x8000_1000)]).slipped).toBe(2);
});

test('an access that is caught here and not there', () => {
  const access = only([read(0x8000_1000), waitOfRead(0x8000_1000), read(0x8000_2000)]);
  expect(mechanismOf(access)).toBe('userfaultfd, not always');
});

test('an access to what was there all along shows nothing', () => {
  const access = only([read(0x8000_1000)], new Set([0x8000_1000]));
  expect(mechanismOf(access)).toBe('met no missing page');
});

test('threads do not settle each other', () => {
  const gpa = 0x8000_1000;
  const access = only([
    read(gpa),
    read(gpa + 0x1000, 'restore_cte', 2),
    waitOfRead(gpa),
    waitOfRead(gpa + 0x1000, 'restore_cte', 2),
  ]);
  expect(access).toMatchObject({ count: 2, waited: 2, slipped: 0 });
});

test('what lies inside of another access is part of it', () => {
  const inner = event('gfn_to_memslot', { gfn: 0x8_0001 }, ['kvm_read_guest', 'restore_cte', ...DEVICE]);
  expect(only([read(0x8000_1000), inner, waitOfRead(0x8000_1000)])).toMatchObject({ via: 'kvm_read_guest' });
});

test('an access over the end of a page needs both', () => {
  const gpa = 0x8000_1ffc;
  expect(only([read(gpa), waitOfRead(0x8000_1000)]).slipped).toBe(1);
  expect(only([read(gpa), waitOfRead(0x8000_1000), waitOfRead(0x8000_2000)]).slipped).toBe(0);
});

const RUN = ['user_mem_abort', 'kvm_handle_guest_abort', 'kvm_arch_vcpu_ioctl_run', 'kvm_vcpu_ioctl'];

test('a vCPU that waits, and one that comes back with the fault', () => {
  const pin = event('__kvm_faultin_pfn', { gfn: 0x8_0001 }, RUN);
  const waits = waitIn(0x8000_1000, ['__get_user_pages', 'hva_to_pfn', '__kvm_faultin_pfn', ...RUN]);
  const exit = event('kvm_userspace_exit', {}, [], { text: 'reason error (14)' });
  expect(only([pin, waits])).toMatchObject({
    context: 'KVM_RUN',
    operation: 'pin',
    waited: 1,
    site: 'user_mem_abort',
  });
  expect(mechanismOf(only([pin, exit]))).toBe('KVM exit');
});

test('an exit for another reason excuses no access', () => {
  const exit = event('kvm_userspace_exit', {}, [], { text: 'reason KVM_EXIT_MMIO (6)' });
  expect(only([event('__kvm_faultin_pfn', { gfn: 0x8_0001 }, RUN), exit]).slipped).toBe(1);
});

test('memory that is touched without any of the watched functions', () => {
  const stolen = waitIn(0x8000_1000, ['kvm_update_stolen_time', ...RUN.slice(2)], 0x215);
  expect(only([stolen])).toMatchObject({
    site: 'kvm_update_stolen_time',
    operation: 'touch',
    via: 'store',
    waited: 1,
  });
  const write = waitIn(0x8000_1000, ['copy_page_from_iter', 'pipe_write', '__arm64_sys_write', 'el0_svc']);
  expect(only([write])).toMatchObject({
    context: 'write(2)',
    site: 'pipe_write',
    via: 'copy_page_from_iter',
  });
  const load = event('handle_userfault', { address: slot.userspace, flags: 0x254 }, [
    ...['__handle_mm_fault', 'handle_mm_fault', 'do_page_fault', 'do_mem_abort', 'el0_da', 'el0t_64_sync'],
  ]);
  expect(only([load])).toMatchObject({ context: 'user code', site: 'user code', via: 'load' });
});

test('pages of the process that are not guest memory do not count', () => {
  const futex = event('get_user_pages_fast', { hva: 0x5000 }, ['get_futex_key', '__arm64_sys_futex']);
  const elsewhere = event('handle_userfault', { address: 0x5000 }, FAULT);
  expect(takeCensus([futex, elsewhere], pages).accesses).toEqual([]);
});

test('frames outside of every slot are counted apart', () => {
  const outside = event('kvm_is_visible_gfn', { gfn: 0x10 }, ['vgic_its_check_id', ...DEVICE]);
  expect(only([outside])).toMatchObject({ outside: 1, count: 1 });
  expect(mechanismOf(only([outside]))).toBe('memslot');
});

test('probes for what a kernel offers, and for nothing else', () => {
  const offered = new Set(['kvm_read_guest', 'handle_userfault', 'vfs_read']);
  expect(probesFor(offered, 'arm64', 'census')).toEqual([
    {
      name: 'kvm_read_guest',
      definition: 'p:census/kvm_read_guest kvm_read_guest gpa=$arg2:x64 length=$arg4:u64 caller=%lr:symbol',
    },
    {
      name: 'handle_userfault',
      definition:
        'p:census/handle_userfault handle_userfault address=+24($arg1):x64 flags=+40($arg1):x32 caller=%lr:symbol',
    },
  ]);
});

test("a compiler's copy of a function is a passage, too", () => {
  expect(isPassage('__kvm_read_guest_page.part.0')).toBe(true);
  expect(isPassage('vgic_its_process_commands.constprop.0')).toBe(false);
});

test('sums of several runs, and what differs between kernels', () => {
  const one = takeCensus([read(0x8000_1000), waitOfRead(0x8000_1000)], pages).accesses;
  const other = takeCensus([read(0x8000_1000, 'scan_its_table')], pages).accesses;
  expect(sumAccesses([one, one]).map(rowOf)).toMatchObject([{ site: 'restore_cte', count: 2, waited: 2 }]);
  expect(differenceOf(sumAccesses([one]).map(rowOf), sumAccesses([one, other]).map(rowOf))).toEqual({
    gone: [],
    fresh: [expect.objectContaining({ site: 'scan_its_table' })],
    otherwise: [],
  });
  const slipping = takeCensus([read(0x8000_1000)], pages).accesses;
  expect(differenceOf(one.map(rowOf), slipping.map(rowOf)).otherwise).toEqual([
    { by: 'device ioctl', site: 'restore_cte', operation: 'read', before: 'userfaultfd', now: 'none' },
  ]);
});
