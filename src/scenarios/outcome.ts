import { type ModelAccess } from '../backends/memory/index.js';
import { type CaseOutcome, type Got, type WaiterGot } from './scenario.js';

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

/** How an access comes out that should have come out right. */
export const OUTCOME_OF: Readonly<Record<WaiterGot, CaseOutcome>> = {
  right: 'works',
  zeros: 'silent',
  stale: 'silent',
  errno: 'fails',
  abort: 'fails',
  waits: 'hangs',
  exited: 'needs-vmm',
};

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
