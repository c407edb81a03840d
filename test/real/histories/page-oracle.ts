/** What a page holds: nothing yet, nothing any more, a lost page, or bytes. */
export type Contents =
  | { readonly kind: 'missing' | 'removed' | 'poisoned' }
  | {
      readonly kind: 'present';
      readonly base: Base;
      /** The last value stored at offset 0; 0 for none. */ readonly word: number;
    };

/**
 * Where the bytes of a present page came from: the source, a removal, or the n-th filling through another
 * mapping.
 */
export type Base = 'source' | 'zeros' | `mark-${number}`;

export interface PageState {
  readonly contents: Contents;
  readonly frozen: boolean;
}

/** What an operation does to one of its pages. */
export type PageOperation =
  | { readonly kind: 'read'; readonly at: 'word' | 'rest' }
  | { readonly kind: 'write'; readonly value: number }
  | { readonly kind: 'mark'; readonly number: number }
  | {
      readonly kind:
        | 'ensure'
        | 'prefetch'
        | 'discard-refetch'
        | 'discard-zero'
        | 'poison'
        | 'freeze'
        | 'thaw'
        | 'protect'
        | 'unprotect'
        | 'close-poison'
        | 'close-zero'
        | 'close-leave'
        | 'stop';
    };

/** One way in which an operation may take effect: the page's next state, and what the operation saw. */
interface Effect {
  readonly next: PageState;
  readonly seen: string;
}

/** What a backend can do, as far as effects depend on it. */
export interface OracleRules {
  readonly freeze: 'full' | 'missing-only';
  /** A missing page may come without having been asked for: fault-around. */
  readonly comesUnasked: boolean;
}

interface Configuration {
  readonly state: PageState;
  /** Operations that have taken effect and have not returned, with what they saw. */
  readonly done: ReadonlyMap<number, string>;
}

const PRESENT = (base: Base, word = 0): Contents => ({ kind: 'present', base, word });
const KEY = ({ contents, frozen }: PageState): string =>
  `${frozen ? 'frozen ' : ''}${contents.kind === 'present' ? `${contents.base}/${contents.word}` : contents.kind}`;

/**
 * One page as it may be, seen from outside. An operation takes effect on a page at one moment between its
 * call and its return; since nobody sees that moment, the oracle keeps every state that some order of the
 * effects leads to, and what returns rules out the orders in which it would have seen something else. When no
 * order is left, the page was served wrongly.
 */
export class PageOracle {
  #configurations = new Map<string, Configuration>();
  readonly #pending = new Map<number, PageOperation>();
  #comesUnasked: boolean;
  /**
   * An access was killed or has failed: the page may come for it all the same, zeros included, and the access
   * is not made.
   */
  #hasOrphans = false;

  constructor(private readonly rules: OracleRules) {
    this.#comesUnasked = rules.comesUnasked;
    this.#keep([{ state: { contents: { kind: 'missing' }, frozen: false }, done: new Map() }]);
  }

  get pending(): number {
    return this.#pending.size;
  }

  /** The states that the page may be in. */
  get states(): readonly string[] {
    this.#close();
    return [...new Set([...this.#configurations.values()].map(({ state }) => KEY(state)))];
  }

  some(holds: (state: PageState) => boolean): boolean {
    this.#close();
    return [...this.#configurations.values()].some(({ state }) => holds(state));
  }

  every(holds: (state: PageState) => boolean): boolean {
    return !this.some((state) => !holds(state));
  }

  invoke(id: number, operation: PageOperation): void {
    this.#close(); // what was under way may have taken effect before
    this.#pending.set(id, operation);
  }

  /** The operation has returned and saw this. Returns whether some order of effects explains it. */
  complete(id: number, saw: (seen: string) => boolean): boolean {
    this.#close();
    const kind = this.#pending.get(id)?.kind;
    const kept = this.#retire(id, ({ done }) => done.has(id) && saw(done.get(id)!));
    // The resolver may have its fault yet.
    if ((kind === 'read' || kind === 'write') && saw('error')) this.#comesUnasked = this.#hasOrphans = true;
    return kept;
  }

  /** The operation was refused and must have changed nothing. */
  refused(id: number): boolean {
    this.#close();
    return this.#retire(id, ({ done }) => !done.has(id) || done.get(id) === 'refused');
  }

  /** The operation has ended and may have taken effect or not; what it asked for may still come. */
  abandon(id: number): void {
    this.#close();
    this.#comesUnasked = true;
    this.#hasOrphans = true;
    this.#retire(id, () => true);
  }

  /** Whether the operation may have seen this by now. */
  maySee(id: number, seen: string): boolean {
    this.#close();
    return [...this.#configurations.values()].some(({ done }) => done.get(id) === seen);
  }

  /** The pager says this of the page now. Returns whether it can be so. */
  observe(holds: (state: PageState) => boolean): boolean {
    this.#close();
    return this.#keep([...this.#configurations.values()].filter(({ state }) => holds(state)));
  }

  #retire(id: number, keeps: (configuration: Configuration) => boolean): boolean {
    this.#pending.delete(id);
    const kept = [...this.#configurations.values()].filter(keeps).map(({ state, done }) => {
      const others = new Map(done);
      others.delete(id);
      return { state, done: others };
    });
    return this.#keep(kept);
  }

  #keep(configurations: readonly Configuration[]): boolean {
    this.#configurations = new Map(configurations.map((each) => [keyOf(each), each]));
    return this.#configurations.size > 0;
  }

  /** Adds every configuration that pending operations can lead to. */
  #close(): void {
    const open = [...this.#configurations.values()];
    for (let at = open.pop(); at; at = open.pop()) {
      for (const next of this.#successors(at)) {
        const key = keyOf(next);
        if (this.#configurations.has(key)) continue;
        this.#configurations.set(key, next);
        open.push(next);
      }
    }
  }

  *#successors({ state, done }: Configuration): Generator<Configuration> {
    if (this.#comesUnasked && !state.frozen && state.contents.kind === 'missing')
      yield { state: { ...state, contents: PRESENT('source') }, done };
    if (this.#hasOrphans && !state.frozen && state.contents.kind === 'removed')
      yield { state: { ...state, contents: PRESENT('zeros') }, done };
    for (const [id, operation] of this.#pending) {
      // A thaw thaws again whenever a freeze that was under way at its call has ended.
      if (operation.kind === 'thaw' && done.has(id) && state.frozen)
        yield { state: { ...state, frozen: false }, done };
      if (done.has(id)) continue;
      // A prefetch leaves to an access what is being fetched for it, and the access was killed.
      if (this.#hasOrphans && operation.kind === 'prefetch')
        yield { state, done: new Map(done).set(id, 'ok') };
      for (const { next, seen } of effectsOf(state, operation, this.rules))
        yield { state: next, done: new Map(done).set(id, seen) };
    }
  }
}

const keyOf = ({ state, done }: Configuration): string =>
  `${KEY(state)}|${[...done]
    .sort(([a], [b]) => a - b)
    .map(([id, seen]) => `${id}:${seen}`)
    .join()}`;

/** How an operation may take effect now; none where it waits. */
export function effectsOf(state: PageState, operation: PageOperation, rules: OracleRules): readonly Effect[] {
  const { contents, frozen } = state;
  const to = (next: Contents, seen = 'ok'): readonly Effect[] => [{ next: { contents: next, frozen }, seen }];
  const unchanged = (seen = 'ok'): readonly Effect[] => [{ next: state, seen }];
  switch (operation.kind) {
    case 'read':
    case 'write': {
      if (contents.kind === 'poisoned') return unchanged('error');
      if (frozen) return [];
      const there = broughtBy(contents);
      if (operation.kind === 'read') return to(there, readFrom(there, operation.at));
      return to({ ...there, word: operation.value });
    }
    case 'ensure':
      if (contents.kind === 'poisoned') return unchanged('PAGE_POISONED');
      if (contents.kind === 'present') return unchanged();
      return frozen ? [] : to(broughtBy(contents));
    case 'prefetch':
      return contents.kind === 'missing' && !frozen ? to(PRESENT('source')) : unchanged();
    case 'discard-refetch':
      return to({ kind: 'missing' });
    case 'discard-zero':
      return to({ kind: 'removed' });
    case 'mark':
      return to(PRESENT(`mark-${operation.number}`));
    case 'poison':
      return contents.kind === 'present' ? unchanged() : to({ kind: 'poisoned' });
    case 'freeze':
      if (rules.freeze === 'missing-only' && contents.kind === 'present') return unchanged('refused');
      return [{ next: { contents, frozen: true }, seen: 'ok' }];
    case 'thaw':
      return [{ next: { contents, frozen: false }, seen: 'ok' }];
    case 'protect':
    case 'unprotect':
      return unchanged();
    case 'stop':
    case 'close-poison':
    case 'close-zero':
    case 'close-leave':
      return [{ next: { contents: atEnd(contents, operation.kind), frozen: false }, seen: 'ok' }];
  }
}

function atEnd(contents: Contents, how: 'stop' | 'close-poison' | 'close-zero' | 'close-leave'): Contents {
  if (contents.kind === 'present' || how === 'close-leave') return contents;
  return how === 'close-zero' && contents.kind !== 'poisoned' ? { kind: 'removed' } : { kind: 'poisoned' };
}

type Present = Extract<Contents, { kind: 'present' }>;

function broughtBy(contents: Exclude<Contents, { kind: 'poisoned' }> | Contents): Present {
  if (contents.kind === 'present') return contents;
  return PRESENT(contents.kind === 'removed' ? 'zeros' : 'source') as Present;
}

const readFrom = ({ base, word }: Present, at: 'word' | 'rest'): string =>
  at === 'word' && word !== 0 ? `written-${word}` : base;
