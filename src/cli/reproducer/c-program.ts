import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { entryFile } from '../../api/package-entry.js';
import { seenText } from '../../conformance/index.js';
import { type Wrong } from './oracle.js';
import { type Record, type RecordedEvent, type RecordedVerb } from './record.js';

export interface ReproducerText {
  /** `no-zero-leak at kernel-copy, on userfaultfd`. */
  readonly title: string;
  /** Who did what, one event a line. */
  readonly trace: readonly string[];
}

/** The C that every reproducer begins with, a file of this package. */
const prelude = (): string =>
  readFileSync(join(dirname(entryFile('package.json')), 'assets', 'reproducer.h'), 'utf8');

const WAYS: { readonly [site: string]: string } = {
  'vmm-load': 'LOAD',
  'vmm-store': 'LOAD',
  'vmm-syscall': 'SYSCALL',
  'kernel-copy': 'VM_READV',
  'external-vm-readv': 'VM_READV',
  'external-mapping': 'OTHER_MAPPING',
};

/**
 * A C program that does at the kernel what a record says, with the same contents in the same order, and looks whether
 * the same goes wrong: it ends with 1 where it does, with 0 where it does not. Undefined for a record with verbs or sites
 * that it has no words for.
 */
export function cReproducer(record: Record, wrong: Wrong, text: ReproducerText): string | undefined {
  if (record.memory !== 'anonymous' && record.memory !== 'shmem') return undefined;
  const steps: string[] = [];
  for (const event of eventsUntil(wrong, record)) {
    const step = stepOf(event, record);
    if (step === undefined) return undefined;
    steps.push(...step);
  }
  const { title, trace } = text;
  const comment = [
    title,
    `What is wrong: ${wrong.touch.site} of page ${wrong.touch.page}: ${wrong.seen ? `it reads ${seenText(wrong.seen)}` : 'it never ends'}.`,
    '',
    ...trace,
  ];
  const touches = record.events.filter(({ kind }) => kind === 'touch' || kind === 'discard').length;
  return `/*
${comment.map((line) => ` * ${line.replaceAll('*/', '* /')}`.trimEnd()).join('\n')}
 *
 * gcc -Wall -Werror -pthread -o reproducer reproducer.c && ./reproducer
 * Ends with 1 where it goes wrong again, with 0 where it does not, with 2 where it could not be tried.
 */
#define PAGES ${record.pageCount}
#define TASKS ${Math.max(touches, 1)}
#define SHARED ${record.memory === 'shmem' ? 1 : 0}
#define MINOR ${record.minor ? 1 : 0}
${prelude()}
int main(void)
{
	set_up();
${steps.map((step) => `\t${step}`).join('\n')}
	return tear_down();
}
`;
}

/** What comes after it went wrong has no part in it. */
function eventsUntil({ touch }: Wrong, { events }: Record): readonly RecordedEvent[] {
  const end = events.findIndex((event) => event.kind === 'end' && event.id === touch.id);
  return end < 0 ? events : events.slice(0, end + 1);
}

/** Statements for one event; none for what has no part in it; undefined for what cannot be said. */
function stepOf(event: RecordedEvent, record: Record): readonly string[] | undefined {
  switch (event.kind) {
    case 'touch': {
      const way = event.bytes ? 'STORE' : WAYS[event.site];
      return way === undefined
        ? undefined
        : [`start(${event.id}, ${way}, ${event.page}, ${event.offset}, ${event.length});`];
    }
    case 'end':
      return [`finish(${event.id});`];
    case 'discard':
      return [`start(${event.id}, DISCARD, ${event.pages.first}, 0, ${event.pages.count});`];
    case 'discarded':
      return [`finish(${event.id});`];
    case 'fault':
      return [`take(${event.page}); /* a ${event.fault} fault */`];
    case 'event':
      return [`take(-1); /* ${event.event} */`];
    case 'verb':
      return verbSteps(event, record);
  }
}

function modeOf(verb: string, wake: boolean, protect = false): string {
  const modes = [
    ...(wake ? [] : [`UFFDIO_${verb}_MODE_DONTWAKE`]),
    ...(protect ? [`UFFDIO_${verb}_MODE_WP`] : []),
  ];
  return modes.join(' | ') || '0';
}

function verbSteps(event: RecordedVerb, { page_bytes }: Record): readonly string[] | undefined {
  const { verb, pages, wake, protect, outcome, bytes } = event;
  const range = `${pages.first}, ${pages.count}`;
  // What the backend refused never reached the kernel.
  if (outcome === 'refused') return [];
  switch (verb) {
    case 'copy':
      if (!bytes) return undefined;
      return [...fillSteps(bytes, page_bytes), `copy(${range}, ${modeOf('COPY', wake, protect)});`];
    case 'continue':
      return [
        ...(bytes ? [...fillSteps(bytes, page_bytes), `fill_page_cache(${range});`] : []),
        `map_page_cache(${range}, ${modeOf('CONTINUE', wake, protect)});`,
      ];
    case 'move':
      if (!bytes) return undefined;
      return [...fillSteps(bytes, page_bytes), `move(${range}, ${modeOf('MOVE', wake)});`];
    case 'zeropage':
      return [`zeropage(${range}, ${modeOf('ZEROPAGE', wake)});`];
    case 'poison':
      return [`poison(${range}, ${modeOf('POISON', wake)});`];
    case 'wake':
      return [`wake(${range});`];
    case 'writeprotect':
      return [`write_protect(${range}, ${protect ? 1 : 0});`];
    default:
      return undefined;
  }
}

const WORD_BYTES = 4;

/** Fills the buffer, in runs of words that belong to one page. */
function fillSteps(bytes: Uint8Array, page_bytes: number): string[] {
  const words = new Uint32Array(bytes.slice().buffer);
  const perPage = page_bytes / WORD_BYTES;
  const steps: string[] = [];
  for (let at = 0; at < words.length;) {
    const owner = ownerOf(words[at]!, at % perPage);
    let end = at + 1;
    while (end < words.length && ownerOf(words[end]!, end % perPage) === owner) end++;
    steps.push(`fill(${at}, ${end - at}, ${owner});`);
    at = end;
  }
  return steps;
}

/** Number of the page plus one, or 0 for zeros: what the upper half of a word says. */
function ownerOf(word: number, at: number): number {
  return (word & 0xffff) === (at & 0xffff) ? word >>> 16 : 0;
}
