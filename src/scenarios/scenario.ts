import { type ProcessFailure } from '../conformance/index.js';
import { type ScenarioEntry } from './scenario-event.js';
import { type UapiInUse } from './uapis.js';

/**
 * How a case comes out.
 *
 * - `works`: right, with nothing but the UAPI and a pager on it.
 * - `needs-vmm`: right, if the VMM does what its sentence says.
 * - `slow`: right, at a rate that falls as vCPUs are added.
 * - `fails`: wrong, and the accessor or the VMM gets an error.
 * - `hangs`: an accessor waits for ever.
 * - `silent`: wrong, without an error.
 * - `cannot`: the UAPI has no way to ask for it.
 */
export type CaseOutcome = 'works' | 'needs-vmm' | 'slow' | 'fails' | 'hangs' | 'silent' | 'cannot';

/** From best to worst. */
export const CASE_OUTCOMES: readonly CaseOutcome[] = [
  'works',
  'needs-vmm',
  'slow',
  'cannot',
  'fails',
  'hangs',
  'silent',
];

/** What an access got. `right`: what it should; `waits`: it has not ended, and nothing goes on any more. */
export type Got = 'right' | 'zeros' | 'stale' | 'errno' | 'abort' | 'waits';

/** What an access got whose vCPU may be out of KVM_RUN. */
export type WaiterGot = Got | 'exited';

/** What was seen in a case. What was counted is in {@link CaseResult.figures}. */
export type CaseSeen =
  | {
      readonly kind:
        | 'discard-hangs'
        | 'earlier-access-hangs'
        | 'discarded-reads-zeros'
        | 'reuse-hangs'
        | 'reuse-fails'
        | 'old-contents'
        | 'other-contents'
        | 'one-fetch'
        | 'one-queue'
        | 'exits'
        | 'own-queues'
        | 'no-freeze'
        | 'frozen-write-passes'
        | 'frozen-write-fails'
        | 'frozen-write-resumes'
        | 'served-after-wake'
        | 'small-page'
        | 'whole-page'
        | 'never-split'
        | 'collapsed'
        | 'collapses-at-end'
        | 'stays-small'
        | 'ioctl-hangs'
        | 'ioctl-waits'
        | 'ioctl-incomplete'
        | 'planned'
        | 'fails-as-missing'
        | 'aborts-as-missing'
        | 'poison-reads-zeros'
        | 'vcpu-out'
        | 'poison-waits';
    }
  | { readonly kind: 'access' | 'vcpu-access' | 'thawed-write'; readonly got: Got }
  /** What the guest and KVM got, each with an access of its own. */
  | { readonly kind: 'waiters'; readonly guest: WaiterGot; readonly kvm: WaiterGot }
  /** `table`: at which the first try failed. */
  | { readonly kind: 'ioctl-loses-pending'; readonly table: string | undefined }
  | { readonly kind: 'ioctl-fails'; readonly errno: number; readonly table: string | undefined }
  | { readonly kind: 'planned-in-vain'; readonly status: string }
  | { readonly kind: 'poison-met'; readonly errno: number }
  /** What a device backend got; `kept`: what there was of its write when the page had arrived. */
  | {
      readonly kind: 'ring';
      readonly read: Got;
      readonly write: Got;
      readonly kept: 'both' | 'entry' | 'rest' | 'nothing';
    }
  /** The process that ran it came to no end of the case. */
  | { readonly kind: 'process'; readonly failure: ProcessFailure };

/** What came of one case of a scenario on one UAPI. Plain data. */
export interface CaseResult {
  /** Kebab-case, one of the scenario's. */
  readonly case: string;
  readonly outcome: CaseOutcome;
  readonly seen: CaseSeen;
  /** What was counted, by name; names end in their unit where they have one. */
  readonly figures: Readonly<Record<string, number>>;
  /** Who did what, in order. */
  readonly trace: readonly ScenarioEntry[];
}

/** What came of a scenario on one UAPI. Plain data. */
export interface ScenarioResult {
  readonly scenario: string;
  readonly uapi: string;
  /** The worst of the cases. */
  readonly outcome: CaseOutcome;
  readonly cases: readonly CaseResult[];
}

/** Something that the designs of the mailing list's thread must survive, run on a UAPI. */
export interface Scenario {
  /** Kebab-case. */
  readonly name: string;
  readonly title: string;
  /** What happens in it, in sentences. */
  readonly description: string;
  /** Who asked for it, or was hurt by it, and where. */
  readonly source: string;
  /** Its cases and what each is about, in order. */
  readonly cases: Readonly<Record<string, string>>;
  /** Runs every case, each on a kernel model of its own. */
  run(uapi: UapiInUse): Promise<readonly CaseResult[]>;
}

/**
 * Runs a scenario on a UAPI, anywhere, and takes milliseconds; the same every time. A case that comes out wrong
 * is a result, no exception.
 */
export async function runScenario(scenario: Scenario, uapi: UapiInUse): Promise<ScenarioResult> {
  const cases = await scenario.run(uapi);
  const outcome = worstOf(cases.map((each) => each.outcome));
  return { scenario: scenario.name, uapi: uapi.name, outcome, cases };
}

/** The worst of some outcomes; `works` of none. */
export function worstOf(outcomes: readonly CaseOutcome[]): CaseOutcome {
  const ranks = outcomes.map((outcome) => CASE_OUTCOMES.indexOf(outcome));
  return CASE_OUTCOMES[Math.max(0, ...ranks)]!;
}
