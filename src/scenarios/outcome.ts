import { type ModelAccess } from '../backends/memory/index.js';
import { type Grade } from './scenario.js';

/** What an access got. `right`: what it should; `waits`: it has not ended, and nothing goes on any more. */
export type Got = 'right' | 'zeros' | 'stale' | 'errno' | 'abort' | 'waits';

/** What an access got, when the bytes wanted are these. */
export function gotOf(access: ModelAccess, wanted: Uint8Array): Got {
  switch (access.state) {
    case 'done':
      if (access.write || same(access.bytes, wanted)) return 'right';
      return access.bytes.every((byte) => byte === 0) ? 'zeros' : 'stale';
    case 'errored':
    case 'killed':
      return 'errno';
    case 'injected':
      return 'abort';
    case 'running':
    case 'blocked':
    case 'exited':
      return 'waits';
  }
}

/** The grade of an access that should have come out right. */
export const GRADE_OF: Readonly<Record<Got, Grade>> = {
  right: 'works',
  zeros: 'silent',
  stale: 'silent',
  errno: 'fails',
  abort: 'fails',
  waits: 'hangs',
};

/** In words, after "the access". */
export const SAYS: Readonly<Record<Got, string>> = {
  right: 'waits and gets the contents',
  zeros: 'reads zeros, and nobody is told',
  stale: 'gets stale contents, and nobody is told',
  errno: 'fails with EFAULT; no page is named',
  abort: 'is an abort in the guest',
  waits: 'waits for ever',
};

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
