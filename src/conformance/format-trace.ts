import { type Accessor, type AccessSite, type Actor, errnoName, type PageRange } from '../api/index.js';
import { operationText, pagesText, seenText } from './text.js';
import { type Timed, type TraceEntry, type TraceEvent } from './trace.js';

interface Wording {
  /** Who makes the accesses of a site. */
  readonly who: string;
  readonly read: string;
  readonly write: string;
}

const ACCESSORS: Readonly<Record<AccessSite, Wording>> = {
  'vcpu-load': { who: 'vCPU', read: 'loads from', write: 'stores to' },
  'vcpu-store': { who: 'vCPU', read: 'loads from', write: 'stores to' },
  'vcpu-atomic': { who: 'vCPU', read: 'makes an atomic access to', write: 'makes an atomic access to' },
  'vcpu-fetch': { who: 'vCPU', read: 'fetches code from', write: 'writes code to' },
  'vcpu-walk': { who: 'vCPU', read: 'walks a page table in', write: 'sets a bit of a page table in' },
  'kernel-copy': { who: 'KVM', read: 'reads (kvm_read_guest)', write: 'writes (kvm_write_guest)' },
  'kernel-cached-pfn': {
    who: 'KVM',
    read: 'reads, through a mapping of its own,',
    write: 'writes, through a mapping of its own,',
  },
  'kernel-visibility': { who: 'KVM', read: 'looks for the slot of', write: 'looks for the slot of' },
  'vmm-load': { who: 'VMM thread', read: 'loads from', write: 'stores to' },
  'vmm-store': { who: 'VMM thread', read: 'loads from', write: 'stores to' },
  'vmm-syscall': { who: 'VMM thread', read: 'makes a system call read', write: 'makes a system call fill' },
  'external-mapping': {
    who: 'other process',
    read: 'loads, through its own mapping, from',
    write: 'stores, through its own mapping, to',
  },
  'external-vm-readv': { who: 'other process', read: 'process_vm_readv', write: 'process_vm_writev' },
  'external-vhost': { who: 'vhost', read: 'reads', write: 'writes' },
};

const ACTORS: Readonly<Record<Exclude<Actor['kind'], 'accessor'>, string>> = {
  guest: 'guest',
  'guest-or-vmm': 'guest or VMM',
  handler: 'handler',
  kernel: 'kernel',
  kvm: 'KVM',
  'page-cache': 'page cache',
  pager: 'pager',
  resolver: 'resolver',
  source: 'source',
  suite: 'suite',
  time: 'time',
  vcpus: 'vCPUs',
  vhost: 'vhost',
  vmm: 'VMM',
};

const CHANGES = { dontneed: 'MADV_DONTNEED', remove: 'MADV_REMOVE', unmap: 'munmap' } as const;

const BLOCKS = {
  'last-page-present': 'maps as one block the pages from',
  'flag-off': 'turns the flag off: mapped as one block the pages from',
  'one-slot': 'makes one slot of all, mapped as one block the pages from',
} as const;

/** Events as lines: who does what, with the moment of each. `wordsOf`: what is done; the page stands for `{}`, or behind. */
export function formatEvents<Event extends { readonly actor: Actor; readonly page?: number | undefined }>(
  entries: readonly Timed<Event>[],
  wordsOf: (event: Event) => string,
): string[] {
  const names = new Names();
  const lines = entries.map((entry) => ({
    moment: String(Math.round(entry.moment)).padStart(6),
    who: names.of(entry.actor),
    what: placed(wordsOf(entry), entry.page),
  }));
  const width = Math.max(0, ...lines.map(({ who }) => who.length));
  return lines.map(({ moment, who, what }) => `${moment}  ${who.padEnd(width)}  ${what}`);
}

/** A trace as lines, one an event. */
export const formatTrace = (entries: readonly TraceEntry[]): string[] => formatEvents(entries, eventWords);

function placed(what: string, page: number | undefined): string {
  if (page === undefined) return what;
  return what.includes('{}') ? what.replace('{}', `page ${page}`) : `${what} page ${page}`;
}

/** Names of those who act; a vCPU has its number by order of appearance. */
class Names {
  readonly #vcpus: number[] = [];

  of(actor: Actor): string {
    return actor.kind === 'accessor' ? this.#ofAccessor(actor) : ACTORS[actor.kind];
  }

  #ofAccessor({ site, number }: Accessor): string {
    const { who } = ACCESSORS[site];
    if (who !== 'vCPU') return `${who} (#${number})`;
    if (!this.#vcpus.includes(number)) this.#vcpus.push(number);
    return `vCPU ${this.#vcpus.indexOf(number)} (#${number})`;
  }
}

const ofPages = (pages: PageRange | undefined): string => (pages ? ` of pages ${pagesText(pages)}` : '');

const STATES: Readonly<Record<Extract<TraceEvent, { kind: 'access-state' }>['state'], string>> = {
  blocked: 'waits for',
  exited: 'leaves KVM_RUN with the fault of',
  running: 'tries {} again',
  injected: 'takes an abort for',
  killed: 'is killed at',
  done: 'is done with',
  errored: 'fails at',
};

type Words = {
  readonly [Kind in TraceEvent['kind']]: (event: Extract<TraceEvent, { kind: Kind }>) => string;
};

const WORDS: Words = {
  'access-starts': ({ actor, write }) =>
    actor.kind === 'accessor' ? ACCESSORS[actor.site][write ? 'write' : 'read'] : 'accesses',
  'access-state': ({ state, errno }) =>
    state === 'errored' ? `fails at {}: ${errnoName(errno ?? 0)}` : STATES[state],
  'access-ends': ({ end, errno, write, seen, why }) => {
    if (end === 'errored') return `fails at {}: ${errnoName(errno ?? 0)}`;
    if (end !== 'done') return why === undefined ? STATES[end] : `is no more at {} (${why})`;
    return write || seen === undefined ? 'has written to' : `has read {}: ${seenText(seen)}`;
  },
  'stopped-at': ({ fault }) => `is stopped at {} (${fault})`,
  'carried-out': ({ verb }) => `has carried out ${verb} of`,
  discarded: () => 'has discarded',
  unmapped: () => 'has unmapped',
  'discard-announced': ({ advice, sent }) =>
    sent ? `announces the ${advice} of` : `sends no event of the ${advice} of`,
  'descriptor-closed': () => 'closes the descriptor of the handler that died',
  verb: ({ verb, errno }) => (errno === 0 ? verb : `${verb}: ${errnoName(errno)}`),
  'contents-written': () => 'has written',
  inserted: () => 'has inserted',
  marked: ({ present }) => `marks ${present ? 'present' : 'missing'}`,
  'mapped-as-block': ({ because }) => BLOCKS[because],
  step: ({ text }) => text,
  'fault-read': ({ fault, page }) =>
    `reads a ${fault} fault ${page === undefined ? 'outside the layout' : 'of'}`,
  'event-read': ({ event, pages }) => `reads the event: ${event}${ofPages(pages)}`,
  'row-settled': ({ verb, pages, wakes, outcome, done }) =>
    `${verb}${ofPages(pages)}${wakes ? '' : ', waking no accessor'}: ${outcome === 'installed' ? 'done' : `${outcome}, ${done} done`}`,
  'operation-starts': ({ operation }) => operationText(operation),
  'operation-ends': ({ operation, error }) => `${operationText(operation)}: ${error ?? 'done'}`,
  'change-starts': ({ change, pages }) => `${CHANGES[change]}${ofPages(pages)}`,
  says: ({ event }) => `says ${event}`,
  'resolver-fails': ({ error }) => `fails: ${error}`,
  'fault-missed': () => 'was told nothing of {}; its contents are still at the source',
  'unknown-event-sent': () => 'sends an event of an unknown kind',
  'source-made-fatal': () => 'ends the thread that reads of it',
  'all-woken': () => 'wakes every accessor',
  clock: ({ ms }) => `${ms} ms`,
  'fetches-counted': ({ most }) => `had at most ${most} reads under way`,
  'close-stuck': ({ after_ms }) => `has not closed the run within ${after_ms} ms`,
  omitted: ({ count }) => `… ${count} more`,
};

/** What an event says was done. */
export const eventWords = (event: TraceEvent): string =>
  (WORDS[event.kind] as (event: TraceEvent) => string)(event);
