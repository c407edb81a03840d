import { type Seen } from './contents.js';
import {
  type AccessEnd,
  type ContentsFailure,
  type ContentsKind,
  type Expected,
  must,
  type OperationRef,
} from './failure.js';
import { type Environment, type Task, type Touch } from './environment.js';

/** The access came to one of these ends. */
export function mustEnd(touch: Touch, ...expected: readonly AccessEnd[]): void {
  const { end, errno, ref } = touch;
  must(end !== undefined && expected.includes(end), () => ({
    kind: 'wrong-end',
    access: ref,
    end,
    errno,
    expected,
  }));
}

/** The access has read what it should. */
export function mustRead({ contents }: Environment, touch: Touch, expected: Expected): void {
  const { bytes, page, offset } = touch;
  const seen = contents.recognise(bytes, page, offset);
  must(isExpected(seen, expected), () => wrongContents(touch, seen, expected));
}

/** The access has read anything but zeros. */
export function mustNotReadZeros({ contents }: Environment, touch: Touch): void {
  const seen = contents.recognise(touch.bytes, touch.page, touch.offset);
  must(seen !== 'zeros', () => wrongContents(touch, seen, 'original'));
}

/** The access was served, and has read what it should. */
export function mustBeServed(environment: Environment, touch: Touch, expected: Expected = 'original'): void {
  mustEnd(touch, 'done');
  mustRead(environment, touch, expected);
}

/** The access was served, and has read these very bytes. `expected`: what they are. */
export function mustReadBytes(
  { contents }: Environment,
  touch: Touch,
  bytes: Uint8Array,
  expected: Expected,
): void {
  const { page, offset } = touch;
  mustEnd(touch, 'done');
  must(Buffer.compare(touch.bytes, bytes) === 0, () =>
    wrongContents(touch, contents.recognise(touch.bytes, page, offset), expected),
  );
}

/** The operation succeeded. */
export function mustSucceed({ ref, error }: Task<OperationRef>): void {
  must(error === undefined, () => ({ kind: 'operation-failed', operation: ref, error: error! }));
}

export function isExpected(seen: Seen, expected: Expected): boolean {
  switch (expected) {
    case 'original':
    case 'zeros':
      return seen === expected;
    case 'original-or-zeros':
      return seen === 'original' || seen === 'zeros';
    case 'written':
      return false; // what was written is compared byte by byte
  }
}

/** What it is that was read in the place of something else. */
export const wrongContents = (
  { ref, page }: Pick<Touch, 'page'> & { readonly ref?: Touch['ref'] },
  seen: Seen,
  expected: Expected,
): ContentsFailure => ({ kind: kindOf(seen), access: ref, page, seen, expected });

function kindOf(seen: Seen): ContentsKind {
  if (seen === 'zeros') return 'zeros-read';
  if (seen === 'original') return 'stale-contents';
  const origins = new Set(
    seen.flatMap(({ of, value }) => (of === 'guest-words' ? [] : `${of} ${value ?? ''}`)),
  );
  return origins.size > 1 ? 'torn-page' : 'foreign-contents';
}
