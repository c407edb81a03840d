import { type PageIndex } from '../api/index.js';

/** Words that belong together. */
export interface WordRun {
  readonly words: number;
  /** `page`: the source's contents of a page; `foreign`: what {@link Contents.foreign} has for a page. */
  readonly of: 'zeros' | 'page' | 'foreign' | 'guest-words' | 'other';
  /** The page; of `other` words the first. */
  readonly value?: number;
}

/** What a page was seen to hold: its `original` contents or `zeros`, whole; or runs of words, at most {@link MOST_RUNS}. */
export type Seen = 'original' | 'zeros' | readonly WordRun[];

/** More runs than that are not kept. */
export const MOST_RUNS = 6;

const WORD_BYTES = 4;
const WORDS_LOW = 0xffff;
/** Added to the number of a page, for contents that no source has. */
const FOREIGN = 0x4000;

/**
 * Where in each page lies what a vCPU can make something of without reading it: an entry of a page table, whose address
 * names the page, and code that puts the page's number into a register (EAX, W0) and jumps to another (R9, X9). In bytes;
 * each is eight bytes long.
 */
export const GUEST_WORDS = { entry: 3072, code: 3080 } as const;

/** Where entries lead: 2 GiB and so many pages, which no memory of a guest's reaches. */
const NAMED = { start: 0x8000_0000, end: 0x8800_0000 };
const PAGE = 4096;
const ENTRY_AT = GUEST_WORDS.entry / WORD_BYTES;

/**
 * By architecture. The lower and upper bits of an entry: one that the guest can use in every way, with a bit in the upper
 * half that no processor minds. And the two words of code that put a number into the register.
 */
const { low, high, code } =
  process.arch === 'arm64'
    ? {
        low: 0x703, // a page, accessed, inner shareable, attribute 0
        high: 0x0080_0000,
        code: (number: number) => [0x5280_0000 | (number << 5), 0xd61f_0120], // movz w0, number; br x9
      }
    : {
        low: 0x67, // present, writable, user, accessed and dirty
        high: 0x0010_0000,
        code: (number: number) => [0xb8 | (number << 8), 0xe1ff_4100 | (number >>> 24)], // mov eax, number; jmp r9
      };

const bytesOf = (words: readonly number[]): Uint8Array => new Uint8Array(Uint32Array.from(words).buffer);

/** The entry that leads to a guest-physical address. */
export const guestEntry = (gpa: number): Uint8Array =>
  bytesOf([(gpa & ~(PAGE - 1)) | low, Math.floor(gpa / 2 ** 32) | high]);

/** The code that leaves a number in the register. */
export const guestCode = (number: number): Uint8Array => bytesOf(code(number));

/** Whether an address is one that entries of {@link Contents} lead to. */
export const isNamed = (gpa: number): boolean => gpa >= NAMED.start && gpa < NAMED.end;

/**
 * Contents that say where they belong: every 32-bit word names its page and its place in it, and none
 * is zero; except {@link GUEST_WORDS}, which are as particular. So a page that is torn, zero, stale or in another's
 * place is recognised, and described.
 */
export class Contents {
  readonly page_bytes: number;
  readonly #pages = new Map<PageIndex, Uint8Array>();
  readonly #zeros: Uint8Array;

  constructor(page_bytes: number) {
    this.page_bytes = page_bytes;
    this.#zeros = new Uint8Array(page_bytes);
  }

  /** What the source has for a page. Not to be written. */
  page(page: PageIndex): Uint8Array {
    let bytes = this.#pages.get(page);
    if (!bytes) this.#pages.set(page, (bytes = this.#make(page + 1)));
    return bytes;
  }

  /** Other contents, which no source has, for a page: what a handler would install by mistake. */
  foreign(page: PageIndex): Uint8Array {
    return this.#make(page + 1 + FOREIGN);
  }

  /** Recognises bytes read at an offset of a page. */
  recognise(bytes: Uint8Array, page: PageIndex, offset = 0): Seen {
    if (same(bytes, this.page(page), offset)) return 'original';
    if (same(bytes, this.#zeros, offset)) return 'zeros';
    return runsOf(bytes, offset);
  }

  #make(number: number): Uint8Array {
    const words = new Uint32Array(this.page_bytes / WORD_BYTES);
    for (let at = 0; at < words.length; at++) words[at] = (number << 16) | (at & WORDS_LOW);
    const bytes = new Uint8Array(words.buffer);
    bytes.set(guestEntry(NAMED.start + number * PAGE), GUEST_WORDS.entry);
    bytes.set(guestCode(number), GUEST_WORDS.code);
    return bytes;
  }
}

function runsOf(bytes: Uint8Array, offset: number): readonly WordRun[] {
  const words = new Uint32Array(bytes.slice().buffer, 0, Math.floor(bytes.length / WORD_BYTES));
  const runs: WordRun[] = [];
  for (const [at, word] of words.entries()) {
    const run = runOf(word, at + offset / WORD_BYTES);
    const last = runs.at(-1);
    if (last?.of === run.of && last.value === run.value)
      runs[runs.length - 1] = { ...last, words: last.words + 1 };
    else if (runs.length === MOST_RUNS) break;
    else runs.push(run);
  }
  return runs;
}

function runOf(word: number, at: number): WordRun {
  const words = 1;
  if (word === 0) return { words, of: 'zeros' };
  if (at >= ENTRY_AT && at < ENTRY_AT + 4) return { words, of: 'guest-words' };
  const number = word >>> 16;
  if ((word & WORDS_LOW) !== (at & WORDS_LOW)) return { words, of: 'other', value: word };
  return number > FOREIGN
    ? { words, of: 'foreign', value: number - FOREIGN - 1 }
    : { words, of: 'page', value: number - 1 };
}

function same(bytes: Uint8Array, whole: Uint8Array, offset: number): boolean {
  for (let at = 0; at < bytes.length; at++) if (bytes[at] !== whole[offset + at]) return false;
  return true;
}
