import fc from 'fast-check';
import { DemandPagingError, type PageRange, type Resolution, type Verb, VERBS } from '../../api/index.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import { BareResolver } from '../resolving.js';
import { pause } from '../environment.js';

function rowOf(verb: Verb, pages: PageRange): Resolution {
  switch (verb) {
    case 'copy':
    case 'move':
    case 'continue':
      return { verb, pages, from: 0 };
    case 'writeprotect':
    case 'rwprotect':
      return { verb, pages, protect: false };
    case 'zeropage':
    case 'poison':
    case 'wake':
    case 'fail':
      return { verb, pages };
  }
}

/** Verbs that mean something for a page that is there. */
const FOR_PRESENT: readonly Verb[] = ['writeprotect', 'rwprotect', 'wake', 'fail'];

export const unsupportedChangesNothing = property<{
  readonly verb: Verb | 'direct' | 'discard';
  readonly present: boolean;
}>({
  name: 'unsupported-changes-nothing',
  claim: 'what is not declared is refused and changes nothing; what is declared is not refused',
  about: 'backend',
  level: 'port',
  pages: 2,
  unless: () => undefined,
  plan: () =>
    fc.record({
      verb: fc.constantFrom<Verb | 'direct' | 'discard'>(...VERBS, 'direct', 'discard'),
      present: fc.boolean(),
    }),
  *body(environment, { verb, present }) {
    const { supports } = environment.attachment;
    const bare = new BareResolver(environment);
    const pages = { first: 1, count: 1 };
    if (verb === 'discard') {
      if (!supports.discard)
        yield* refusesDiscard(() => environment.attachment.discard(pages), environment.exact);
      return;
    }
    const declared = verb === 'direct' ? supports.directCopy : supports.verbs.includes(verb);
    // A verb that is declared is only tried where it means something.
    const put = declared ? verb !== 'direct' && FOR_PRESENT.includes(verb) : present;
    if (put) yield* bare.through(pages, environment.contents.page(1));
    environment.port.staging.set(environment.contents.foreign(1), 0);
    if (verb === 'direct' && declared) return; // an address is the backend's own affair
    const result = bare.row(
      verb === 'direct' ? { verb: 'copy', pages, from: 0, direct: true } : rowOf(verb, pages),
    );
    yield pause;
    const { outcome, done } = result;
    if (declared) return must(outcome !== 'refused', () => ({ kind: 'declared-but-refused', verb }));
    must(outcome === 'refused' && done === 0, () => ({
      kind: 'not-declared-but-done',
      verb,
      outcome,
      done,
    }));
    const bytes = environment.look(1);
    const seen = bytes ? environment.contents.recognise(bytes, 1) : 'absent';
    must(seen === (put ? 'original' : 'absent'), () => ({
      kind: 'not-declared-but-changed',
      verb,
      page: 1,
      seen,
    }));
  },
});

function* refusesDiscard(discard: () => void | Promise<void>, exact: boolean): Generator<typeof pause, void> {
  let code: string | undefined;
  let over = false;
  const refused = (error: unknown): void => {
    code = error instanceof DemandPagingError ? error.code : String(error);
    over = true;
  };
  try {
    void Promise.resolve(discard()).then(() => (over = true), refused);
  } catch (error) {
    refused(error);
  }
  // A rejection arrives between runs of a stepped environment: it is only waited for where it can come.
  yield { for: 'the-refusal', until: () => over || exact };
  must(code === 'NOT_SUPPORTED' || (exact && !over), () => ({
    kind: 'not-declared-but-discarded',
    error: code,
  }));
}
