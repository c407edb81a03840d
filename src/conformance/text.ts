import { type Accessor, errnoName, type PageIndex, type PageRange } from '../api/index.js';
import { MOST_RUNS, type Seen, type WordRun } from './contents.js';
import {
  type AccessRef,
  type Awaited,
  type ContentsFailure,
  type EffectSeen,
  type Expected,
  type Failure,
  type OperationRef,
} from './failure.js';

/** The sentences of the suite: every one about a failure is made here. */

export const pagesText = ({ first, count }: PageRange): string => `${first}+${count}`;

export const accessorText = ({ site, number }: Accessor): string => `${site}#${number}`;

const accessText = ({ accessor, page }: AccessRef): string => `${accessorText(accessor)} of page ${page}`;

export const operationText = ({ operation, pages }: OperationRef): string =>
  pages ? `${operation} ${pagesText(pages)}` : operation;

const refText = (ref: AccessRef | OperationRef): string =>
  'accessor' in ref ? accessText(ref) : operationText(ref);

/** What a page was seen to hold. */
export function seenText(seen: Seen): string {
  if (seen === 'original') return 'the contents';
  if (seen === 'zeros') return 'zeros';
  return `${seen.map(runText).join(', then ')}${seen.length === MOST_RUNS ? ', …' : ''}`;
}

function runText({ words, of, value }: WordRun): string {
  const what = {
    zeros: 'zeros',
    page: `page ${value}`,
    foreign: `foreign contents of page ${value}`,
    'guest-words': 'what a guest uses',
    other: `something else (0x${(value ?? 0).toString(16)})`,
  }[of];
  return `${words} words of ${what}`;
}

const EXPECTED: Readonly<Record<Expected, string>> = {
  original: 'its contents',
  zeros: 'zeros',
  'original-or-zeros': 'its contents or zeros, whole',
  written: 'its contents with what was written',
};

const EFFECTS_SEEN: Partial<Readonly<Record<EffectSeen, string>>> = {
  'not-delivered': 'waits, and no fault is delivered',
  'delivered-and-ended': 'ends, though a fault is delivered',
};

const AWAITED = {
  'a-fetch': 'for a page to be asked for',
  'the-stopped-event': "for the resolver's end to be said",
  'the-source-failed-event': 'for the pager to say that its source failed',
  'the-written-event': 'for the write to be reported',
  'the-refusal': 'for the refusal',
  'its-turn': 'for its turn',
} as const;

const awaitedText = (awaited: Awaited): string =>
  'what' in awaited ? AWAITED[awaited.what] : `for ${awaited.tasks.map(refText).join(', ')} to end`;

const errnoText = (errno: number | undefined): string => (errno ? ` (${errnoName(errno)})` : '');

const pageOrAccess = (page: PageIndex, access: AccessRef | undefined): string =>
  access ? `${accessText(access)} read` : `page ${page} holds`;

const contentsText = ({ access, page, seen, expected }: ContentsFailure): string =>
  `${pageOrAccess(page, access)} ${seenText(seen)}; expected: ${EXPECTED[expected]}`;

const TEXTS: { readonly [Kind in Failure['kind']]: (failure: Extract<Failure, { kind: Kind }>) => string } = {
  'zeros-read': contentsText,
  'stale-contents': contentsText,
  'torn-page': contentsText,
  'foreign-contents': contentsText,
  'wrong-end': ({ access, end, errno, expected }) =>
    `${accessText(access)} is ${end ?? 'not ended'}${errnoText(errno)}; expected: ${expected.join(' or ')}`,
  'not-stopped': ({ access, page }) =>
    `${accessText(access)} went on though the page was ${page === 'frozen' ? 'frozen' : 'marked missing'}`,
  'not-noticed': ({ access, seen }) =>
    seen === undefined
      ? `${accessText(access)} wrote to a page that had not come, and no fault was delivered: around what it wrote are zeros`
      : `${accessText(access)} read ${seenText(seen)} of a page that had not come, and no fault was delivered`,
  'fault-for-poison': ({ access }) => `${accessText(access)}, which is poisoned, delivered a fault`,
  'wrong-effect': ({ site, declared, seen }) =>
    `${site} is declared '${declared}', and a missing page there: ${EFFECTS_SEEN[seen] ?? seen}`,
  'wrong-address': ({ access, reported }) => `the fault of ${accessText(access)} says page ${reported}`,
  'declared-but-refused': ({ verb }) => `${verb} is declared and was refused`,
  'not-declared-but-done': ({ verb, outcome, done }) =>
    `${verb} is not declared, and was ${outcome} with ${done} done`,
  'not-declared-but-changed': ({ verb, page, seen }) =>
    `${verb} is not declared, and left page ${page} ${seen === 'absent' ? 'absent' : `with ${seenText(seen)}`}`,
  'not-declared-but-discarded': ({ error }) =>
    `discarding is not declared, and ended with ${error ?? 'no error'}`,
  'malformed-but-done': ({ mistake, outcome, done }) =>
    `a row with ${mistake} was ${outcome} with ${done} done; expected: refused`,
  'malformed-but-changed': ({ mistake, page }) => `a row with ${mistake} made page ${page} present`,
  'wrong-outcome': ({ verb, page, outcome, done, errno, expected }) =>
    `${verb} of page ${page} was ${outcome}${errnoText(errno)} with ${done} done; expected: ${expected}`,
  'page-absent': ({ page, because }) =>
    because === 'brought'
      ? `page ${page} was brought and is absent`
      : `page ${page} counts as present and is absent`,
  'operation-failed': ({ operation, error }) => `${operationText(operation)} failed with ${error}`,
  'operation-granted': ({ operation, after }) =>
    `${operationText(operation)} was granted after the ${after === 'close' ? 'pager had closed' : 'resolver had failed'}`,
  'event-lost': ({ access }) =>
    `${accessText(access)} wrote after the page was protected, and no event said so`,
  'wrong-events': ({ seen, expected }) =>
    `the pager said ${seen.join(', ') || 'nothing'}; expected: ${expected.join(', ')}`,
  'too-many-fetches': ({ seen, allowed }) => `${seen} fetches are under way; the policy allows ${allowed}`,
  'closed-memory-read': ({ page, error }) =>
    `reading page ${page} after closing ended with ${error ?? 'bytes'}; expected: CLOSED`,
  stuck: ({ awaited, waiting }) =>
    `nothing goes on any more, waiting ${awaitedText(awaited)}${waiting.length > 0 ? `; waiting accesses: ${waiting.map(accessText).join(', ')}` : ''}`,
  'no-end': ({ steps, awaited }) => `no end after ${steps} steps, waiting ${awaitedText(awaited)}`,
  'timed-out': ({ after_ms, awaited }) =>
    `nothing came within ${after_ms} ms, waiting ${awaitedText(awaited)}`,
  'close-stuck': ({ after_ms }) => `closing did not end within ${after_ms} ms`,
  thrown: ({ error }) => `it throws: ${error}`,
  'no-answer': ({ after_ms }) => `it does not answer: nothing came back for ${after_ms / 1000} s`,
  idle: () => 'it does not answer: it waits for something, and nothing is under way that could bring it',
  'process-ended': ({ how }) => `it ended its process: ${how}`,
  'not-evaluated': ({ last }) =>
    `not evaluated: it stopped answering, or ended its process, too often, at last in ${last}`,
};

/** Every kind of failure. */
export const FAILURE_KINDS = Object.keys(TEXTS) as readonly Failure['kind'][];

/** What went wrong, in one sentence: what was seen, and what should have been. */
export const failureText = (failure: Failure): string =>
  (TEXTS[failure.kind] as (failure: Failure) => string)(failure);
