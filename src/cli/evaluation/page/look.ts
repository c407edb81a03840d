import { type Effect } from '../../../api/index.js';
import { type CaseOutcome } from '../../../scenarios/index.js';
import { type Result } from '../../../conformance/index.js';

/** How things look: a class, and a sign that says the same without colour. */
export interface Look {
  readonly look: 'holds' | 'fails' | 'open' | 'exits' | 'errors' | 'none';
  readonly sign: string;
}

export const OUTCOMES: Readonly<Record<Result['outcome'], Look & { readonly means: string }>> = {
  holds: { look: 'holds', sign: '✓', means: 'holds' },
  fails: { look: 'fails', sign: '✗', means: 'fails; press for who did what' },
  unmediated: { look: 'open', sign: '○', means: 'unmediated: not intercepted' },
  'not-applicable': { look: 'none', sign: '–', means: 'not applicable; press for why' },
  skipped: { look: 'none', sign: '·', means: 'skipped: the access cannot be made here' },
};

export const EFFECTS: Readonly<Record<Effect, Look & { readonly means: string }>> = {
  blocks: { look: 'holds', sign: 'blocks', means: 'the accessor waits, and a fault is delivered' },
  exits: { look: 'exits', sign: 'exits', means: 'KVM_RUN returns with the fault' },
  errors: { look: 'errors', sign: 'errors', means: 'the access fails at once; no page is named' },
  injects: { look: 'errors', sign: 'injects', means: 'the guest sees an abort' },
  unmediated: { look: 'open', sign: 'open', means: 'unmediated: it goes through, and no fault is delivered' },
};

export const CASE_OUTCOMES: Readonly<Record<CaseOutcome, Look>> = {
  works: { look: 'holds', sign: '✓ works' },
  'needs-vmm': { look: 'exits', sign: '✓ needs VMM' },
  slow: { look: 'errors', sign: 'slow' },
  cannot: { look: 'none', sign: 'cannot' },
  fails: { look: 'fails', sign: '✗ fails' },
  hangs: { look: 'fails', sign: '✗ hangs' },
  silent: { look: 'open', sign: '○ silent' },
};
