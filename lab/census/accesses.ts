import { type GuestPages } from './guest-pages.js';
import { type TraceEvent } from './trace-event.js';
import { FAULT_FLAG_WRITE, isPassage, type Operation, plainName, WAIT, WATCHED } from './watched.js';

/** A place in the kernel that uses guest memory, and what became of it there. */
export interface Access {
  /** Where it came from: `KVM_RUN`, `device ioctl`, … */
  readonly context: string;
  /** The function that uses memory: the first that is no mere way to it. */
  readonly site: string;
  readonly operation: Operation | 'touch';
  /** The function it goes through; for `touch` the copy or the instruction itself. */
  readonly via: string;
  count: number;
  /** Times it waited in userfaultfd. */
  waited: number;
  /** Times KVM_RUN returned with the fault. */
  exited: number;
  /** Times it met a page that was missing and neither waited nor exited. */
  slipped: number;
  /** Frames outside of every memslot. */
  outside: number;
}

/** A page in the order of first use, for comparing with what was planned. */
export interface FirstUse {
  readonly page: number;
  readonly kind: 'R' | 'W';
}

export interface Census {
  readonly accesses: readonly Access[];
  /** Pages that were read or written, in the order of the first time. */
  readonly touched: readonly FirstUse[];
}

const OPERATION = new Map(WATCHED.map(({ name, operation }) => [name, operation]));
const EXIT = 'kvm_userspace_exit';
/** An exit for a missing page is an error of the ioctl: EFAULT, or EHWPOISON. `reason error (14)` */
const FAULTED = /^reason error \((14|133)\)/;

/** What happens inside of a fault, and in the copy that met it. */
const FAULT_FRAME =
  /^(handle_userfault|trace_event_raw_event_exceptions|do_anonymous_page|do_pte_missing|do_fault|do_shared_fault|do_read_fault|do_cow_fault|__do_fault|shmem_fault|shmem_get_folio_gfp|hugetlb_(no_page|fault)|do_wp_page|__handle_mm_fault|handle_mm_fault|do_page_fault|do_translation_fault|do_mem_abort|el1_abort|el1h_64_sync(_handler)?|do_user_addr_fault|handle_page_fault|exc_page_fault|asm_exc_page_fault)$/;
const COPY =
  /^(__arch_(copy|clear)_(to|from|)_?user|_?_?(inline_)?copy_(to|from)_user.*|_copy_(to|from)_iter|copy_page_(to|from)_iter|rep_(movs|stos)_alternative|__(put|get)_user(_nocheck)?_\d|_copy_(to|from)_iter.*|raw_copy_.*)$/;

/**
 * Counts the uses of guest memory in a trace during which every page was missing at first and brought when
 * somebody waited for it. `resident`: pages that were there from the beginning.
 */
export function takeCensus(
  events: readonly TraceEvent[],
  pages: GuestPages,
  resident: ReadonlySet<number> = new Set(),
): Census {
  const counter = new Counter(pages, resident);
  for (const event of events) counter.take(event);
  return counter.end();
}

/** An access under way on a thread: whether it slipped through shows when the thread goes on. */
interface Pending {
  readonly row: Access;
  readonly pages: readonly number[];
}

class Counter {
  readonly #rows = new Map<string, Access>();
  readonly #touched = new Map<number, 'R' | 'W'>();
  readonly #present: Set<number>;
  readonly #pending = new Map<number, Pending>();

  constructor(
    private readonly pages: GuestPages,
    resident: ReadonlySet<number>,
  ) {
    this.#present = new Set(resident);
  }

  take(event: TraceEvent): void {
    if (event.name === WAIT) return this.#wait(event);
    if (event.name === EXIT) return this.#exit(event);
    const operation = OPERATION.get(event.name);
    if (operation !== undefined) this.#access(event, operation);
  }

  end(): Census {
    for (const thread of this.#pending.keys()) this.#settle(thread);
    const accesses = [...this.#rows.values()];
    return { accesses, touched: [...this.#touched].map(([page, kind]) => ({ page, kind })) };
  }

  #access(event: TraceEvent, operation: Operation): void {
    const callers = event.stack.slice(1);
    if (callers.some((name) => OPERATION.has(plainName(name)))) return;
    const pages = this.pages.of(event);
    if (pages === undefined) return;
    this.#settle(event.thread);
    const row = this.#row(callers, operation, event.name);
    row.count++;
    const inside = pages.filter((page) => this.pages.isMemory(page));
    row.outside += pages.length - inside.length;
    if (operation === 'look up') return;
    if (operation !== 'pin') this.#touch(inside, operation === 'read' ? 'R' : 'W');
    this.#pending.set(event.thread, { row, pages: inside });
  }

  #wait(event: TraceEvent): void {
    const page = this.pages.waitedFor(event);
    if (page === undefined) return;
    this.#present.add(page);
    const { stack } = event;
    const outermost = stack.findLastIndex((name, at) => at > 0 && OPERATION.has(plainName(name)));
    if (outermost !== -1) {
      const via = plainName(stack[outermost]!);
      this.#row(stack.slice(outermost + 1), OPERATION.get(via)!, via).waited++;
      return;
    }
    const write = (Number(event.fields.get('flags') ?? 0) & FAULT_FLAG_WRITE) !== 0;
    this.#touch([page], write ? 'W' : 'R');
    const at = stack.findIndex((name) => !FAULT_FRAME.test(name) && !isPassage(name));
    const copy = stack.slice(at).findIndex((name) => !COPY.test(name) && !isPassage(name));
    const via = copy > 0 ? stack[at]! : write ? 'store' : 'load';
    const row = this.#row(at === -1 ? [] : stack.slice(at + copy), 'touch', via);
    row.count++;
    row.waited++;
  }

  #exit(event: TraceEvent): void {
    const pending = this.#pending.get(event.thread);
    if (pending !== undefined && FAULTED.test(event.text)) {
      pending.row.exited++;
      this.#pending.delete(event.thread);
    }
    this.#settle(event.thread);
  }

  #settle(thread: number): void {
    const pending = this.#pending.get(thread);
    this.#pending.delete(thread);
    if (pending?.pages.some((page) => !this.#present.has(page))) pending.row.slipped++;
  }

  #touch(pages: readonly number[], kind: 'R' | 'W'): void {
    for (const page of pages) if (!this.#touched.has(page)) this.#touched.set(page, kind);
  }

  #row(callers: readonly string[], operation: Access['operation'], via: string): Access {
    const own = callers.find((name) => !isPassage(name));
    const site = own === undefined || isEntry(own) ? 'user code' : plainName(own);
    const context = contextOf(callers);
    const key = [context, site, operation, via].join(' ');
    let row = this.#rows.get(key);
    if (row === undefined) {
      row = { context, site, operation, via, count: 0, waited: 0, exited: 0, slipped: 0, outside: 0 };
      this.#rows.set(key, row);
    }
    return row;
  }
}

const isEntry = (name: string): boolean => /^(el0_|el0t_|asm_exc_|exc_|irqentry_)/.test(name);

/** The way into the kernel, by the outermost functions that tell. */
function contextOf(callers: readonly string[]): string {
  const has = (pattern: RegExp): boolean => callers.some((name) => pattern.test(plainName(name)));
  if (has(/^kvm_arch_vcpu_ioctl_run$/)) return 'KVM_RUN';
  if (has(/^kvm_vcpu_ioctl$/)) return 'vCPU ioctl';
  if (has(/^kvm_device_ioctl$/)) return 'device ioctl';
  if (has(/^kvm_vm_ioctl$/)) return 'VM ioctl';
  const call = callers.map((name) => /^__(?:arm64|x64)_sys_(\w+)$/.exec(name)?.[1]).find(Boolean);
  if (call !== undefined) return `${call}(2)`;
  if (has(/^vhost_(run_work_list|task_fn|worker)$/)) return 'vhost';
  if (has(/^(process_one_work|kthread)$/)) return 'a thread of the kernel';
  return 'user code';
}
