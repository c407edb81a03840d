import { type AccessSite, SITE_NAMES } from '../api/index.js';
import { type TimelineEntry } from './timeline.js';

interface Actor {
  /** Who makes the accesses of a site. */
  readonly who: string;
  readonly read: string;
  readonly write: string;
}

const ACTORS: Readonly<Record<AccessSite, Actor>> = {
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

const NAMES: Readonly<Record<string, string>> = {
  program: 'VMM',
  body: 'handler',
  resolver: 'pager',
  port: 'kernel',
  vmm: 'VMM',
  kvm: 'KVM',
  clock: 'time',
};

const DEEDS: Readonly<Record<string, string>> = {
  blocked: 'waits for',
  exited: 'leaves KVM_RUN with the fault of',
  running: 'tries {} again',
  injected: 'takes an abort for',
  killed: 'is killed at',
};

/** The stage says how an access ended, and with what. */
const SAID_OTHERWISE: readonly string[] = ['done', 'errored', 'poisoned'];

const CHANGES: readonly (readonly [RegExp, string])[] = [
  [/^dontneed /, 'MADV_DONTNEED'],
  [/^remove /, 'MADV_REMOVE'],
  [/^withdraw /, 'MADV_DONTNEED'],
  [/^punch /, 'fallocate, punching a hole,'],
  [/^unmap /, 'munmap'],
];

/** Who did what, as people say it: one event a line, with the moment of each. */
export function narrate(entries: readonly TimelineEntry[]): string[] {
  const cast = new Cast();
  const spoken = entries.flatMap((entry) => {
    const { moment, page } = entry;
    const who = cast.nameOf(entry.who);
    const what = deedOf(entry);
    return what === undefined ? [] : [{ moment, who, what: page === undefined ? what : placed(what, page) }];
  });
  const width = Math.max(0, ...spoken.map(({ who }) => who.length));
  const [before, ...rest] = spoken;
  // A run of the same is said once.
  const told = before ? [before] : [];
  for (const line of rest) {
    const last = told.at(-1)!;
    if (last.who !== line.who || last.what !== line.what) told.push(line);
  }
  return told.map(
    ({ moment, who, what }) => `${String(Math.round(moment)).padStart(6)}  ${who.padEnd(width)}  ${what}`,
  );
}

/** The page goes where `{}` stands, or behind. */
const placed = (what: string, page: number): string =>
  what.includes('{}') ? what.replace('{}', `page ${page}`) : `${what} page ${page}`;

/** Gives the accessors names that people have for them; a vCPU has its number by order of appearance. */
class Cast {
  readonly #vcpus: string[] = [];

  nameOf(who: string): string {
    const { site, number } = accessorOf(who) ?? {};
    if (!site) return CHANGES.some(([pattern]) => pattern.test(who)) ? 'guest or VMM' : (NAMES[who] ?? who);
    const actor = ACTORS[site].who;
    if (actor !== 'vCPU') return `${actor} (#${number})`;
    if (!this.#vcpus.includes(who)) this.#vcpus.push(who);
    return `vCPU ${this.#vcpus.indexOf(who)} (#${number})`;
  }
}

function accessorOf(who: string): { readonly site: AccessSite; readonly number: string } | undefined {
  const [, name, number] = /^([a-z-]+)#(\d+)/.exec(who) ?? [];
  const site = SITE_NAMES.find((candidate) => candidate === name);
  return site && { site, number: number! };
}

function deedOf({ who, what }: TimelineEntry): string | undefined {
  const site = accessorOf(who)?.site;
  if (site) {
    if (what === 'starts to read') return ACTORS[site].read;
    if (what === 'starts to write') return ACTORS[site].write;
    if (what.startsWith('stopped: ')) return `is stopped at {} (${what.slice('stopped: '.length)})`;
    return SAID_OTHERWISE.includes(what) ? undefined : (DEEDS[what] ?? what);
  }
  const change = CHANGES.find(([pattern]) => pattern.test(who));
  if (change) return what === 'starts' ? `${change[1]} of pages ${who.replace(/^\w+ /, '')}` : what;
  if (who === 'port') return `has carried out ${what} of`;
  return what;
}
