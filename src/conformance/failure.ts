import {
  type Accessor,
  type AccessSite,
  type Effect,
  type Outcome,
  type PageIndex,
  type PageRange,
  type Verb,
} from '../api/index.js';
import { type Seen } from './contents.js';

/** An access of a run. */
export interface AccessRef {
  readonly accessor: Accessor;
  readonly page: PageIndex;
  readonly offset: number;
}

/** What is asked of a pager about a range of pages. */
export type Operation =
  | 'ensure'
  | 'prefetch'
  | 'discard-refetch'
  | 'discard-zero'
  | 'freeze'
  | 'thaw'
  | 'poison'
  | 'protect'
  | 'unprotect';

/** Something under way that is no access: a request to the pager, or a change of memory behind its back. */
export interface OperationRef {
  readonly operation: Operation | 'close' | 'discard' | 'unmap';
  readonly pages?: PageRange;
}

/** How an access ended. */
export type AccessEnd = 'done' | 'errored' | 'injected' | 'killed';

/** What a page should hold. `written`: what an access of the run has written, in the source's contents. */
export type Expected = 'original' | 'zeros' | 'original-or-zeros' | 'written';

/** What a body waits for that never came. */
export type Awaited =
  | { readonly tasks: readonly (AccessRef | OperationRef)[] }
  | {
      readonly what:
        | 'a-fetch'
        | 'the-stopped-event'
        | 'the-source-failed-event'
        | 'the-written-event'
        | 'the-refusal'
        | 'its-turn';
    };

/** What became of an access to a missing page. `not-delivered`: it waits, and no fault is delivered. */
export type EffectSeen = Effect | 'killed' | 'not-delivered' | 'delivered-and-ended';

/** What wrong contents are: zeros; the source's, older than what should be there; of several origins; of another. */
export type ContentsKind = 'zeros-read' | 'stale-contents' | 'torn-page' | 'foreign-contents';

type Each<Kind extends string, Facts> = Kind extends string ? { readonly kind: Kind } & Facts : never;

/** A page holds, or an access has read, what it must not. */
export type ContentsFailure = Each<
  ContentsKind,
  {
    /** Undefined where the page was looked at without an access. */
    readonly access: AccessRef | undefined;
    readonly page: PageIndex;
    readonly seen: Seen;
    readonly expected: Expected;
  }
>;

/**
 * What went wrong, by kind, with the facts of it. Plain data: sentences are made of it by {@link failureText} alone, and
 * nothing is decided by those.
 */
export type Failure =
  | ContentsFailure
  | {
      readonly kind: 'wrong-end';
      readonly access: AccessRef;
      readonly end: AccessEnd | undefined;
      readonly errno: number | undefined;
      readonly expected: readonly AccessEnd[];
    }
  /** An access went on to a page that was frozen, or marked missing late. */
  | { readonly kind: 'not-stopped'; readonly access: AccessRef; readonly page: 'frozen' | 'marked-missing' }
  /** An access went through to a page that had not come, and no fault was delivered. `seen`: what it read. */
  | { readonly kind: 'not-noticed'; readonly access: AccessRef; readonly seen: Seen | undefined }
  /** A fault was delivered for an access to a poisoned page. */
  | { readonly kind: 'fault-for-poison'; readonly access: AccessRef }
  | {
      readonly kind: 'wrong-effect';
      readonly site: AccessSite;
      readonly declared: Effect;
      readonly seen: EffectSeen;
    }
  | { readonly kind: 'wrong-address'; readonly access: AccessRef; readonly reported: PageIndex }
  | { readonly kind: 'declared-but-refused'; readonly verb: Verb | 'direct' }
  | {
      readonly kind: 'not-declared-but-done';
      readonly verb: Verb | 'direct';
      readonly outcome: Outcome;
      readonly done: number;
    }
  | {
      readonly kind: 'not-declared-but-changed';
      readonly verb: Verb | 'direct';
      readonly page: PageIndex;
      readonly seen: Seen | 'absent';
    }
  /** Discarding is not declared, and did not end with NOT_SUPPORTED. */
  | { readonly kind: 'not-declared-but-discarded'; readonly error: string | undefined }
  | {
      readonly kind: 'malformed-but-done';
      readonly mistake: string;
      readonly outcome: Outcome;
      readonly done: number;
    }
  | { readonly kind: 'malformed-but-changed'; readonly mistake: string; readonly page: PageIndex }
  | {
      readonly kind: 'wrong-outcome';
      readonly verb: Verb;
      readonly page: PageIndex;
      readonly outcome: Outcome;
      readonly done: number;
      readonly errno: number;
      readonly expected: Outcome;
    }
  /** `because`: what says that the page is there. */
  | { readonly kind: 'page-absent'; readonly page: PageIndex; readonly because: 'brought' | 'present-state' }
  | { readonly kind: 'operation-failed'; readonly operation: OperationRef; readonly error: string }
  | {
      readonly kind: 'operation-granted';
      readonly operation: OperationRef;
      readonly after: 'close' | 'resolver-failure';
    }
  /** The pager did not say that a protected page was written. */
  | { readonly kind: 'event-lost'; readonly event: 'written'; readonly access: AccessRef }
  | { readonly kind: 'wrong-events'; readonly seen: readonly string[]; readonly expected: readonly string[] }
  | { readonly kind: 'too-many-fetches'; readonly seen: number; readonly allowed: number }
  /** Memory that was closed was not refused with CLOSED. */
  | { readonly kind: 'closed-memory-read'; readonly page: PageIndex; readonly error: string | undefined }
  /** Nothing can go on any more. */
  | { readonly kind: 'stuck'; readonly awaited: Awaited; readonly waiting: readonly AccessRef[] }
  | { readonly kind: 'no-end'; readonly steps: number; readonly awaited: Awaited }
  | { readonly kind: 'timed-out'; readonly after_ms: number; readonly awaited: Awaited }
  | { readonly kind: 'close-stuck'; readonly after_ms: number }
  /** The subject, or the suite, has thrown: its text, with the stack where there is one. */
  | { readonly kind: 'thrown'; readonly error: string }
  | ProcessFailure;

/** What goes wrong with a process in which a target is evaluated. */
export type ProcessFailure =
  | { readonly kind: 'no-answer'; readonly after_ms: number }
  /** It waits for something, and nothing is under way that could bring it. */
  | { readonly kind: 'idle' }
  | { readonly kind: 'process-ended'; readonly how: string }
  /** Not begun, since processes ended too often. `last`: where, at last. */
  | { readonly kind: 'not-evaluated'; readonly last: string };

/** A property does not hold. */
export class PropertyFailure extends Error {
  override readonly name = 'PropertyFailure';

  constructor(readonly failure: Failure) {
    super(failure.kind);
  }
}

/** Throws {@link PropertyFailure} unless `holds`; the failure is made only then. */
export function must(holds: boolean, failure: () => Failure): asserts holds {
  if (!holds) throw new PropertyFailure(failure());
}
