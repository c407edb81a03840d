import { type JudgedUapi } from './uapis.js';

/**
 * How a case comes out.
 *
 * - `works`: right, with nothing but the UAPI and a pager on it.
 * - `needs-vmm`: right, if the VMM does what the verdict says.
 * - `slow`: right, at a rate that falls as vCPUs are added.
 * - `fails`: wrong, and somebody is told.
 * - `hangs`: somebody waits for ever.
 * - `silent`: wrong, and nobody is told.
 * - `cannot`: the UAPI has no way to ask for it.
 */
export type Grade = 'works' | 'needs-vmm' | 'slow' | 'fails' | 'hangs' | 'silent' | 'cannot';

/** From best to worst. */
export const GRADES: readonly Grade[] = ['works', 'needs-vmm', 'slow', 'cannot', 'fails', 'hangs', 'silent'];

/** What came of one case of a scenario on one UAPI. Plain data. */
export interface CaseVerdict {
  /** Kebab-case, one of the scenario's. */
  readonly case: string;
  readonly grade: Grade;
  /** One sentence: what was seen. */
  readonly says: string;
  /** What was counted, by name; names end in their unit where they have one. */
  readonly figures: Readonly<Record<string, number>>;
  /** Who did what, in order, one event a line. */
  readonly timeline: readonly string[];
}

/** What came of a scenario on one UAPI. Plain data. */
export interface ScenarioVerdict {
  readonly scenario: string;
  readonly uapi: string;
  /** The worst of the cases. */
  readonly grade: Grade;
  readonly cases: readonly CaseVerdict[];
}

/** Something that the designs of the mailing list's thread must survive, played on a UAPI. */
export interface Scenario {
  /** Kebab-case. */
  readonly name: string;
  readonly title: string;
  /** What happens in it, in sentences. */
  readonly plays: string;
  /** Who asked for it, or was hurt by it, and where. */
  readonly source: string;
  /** Its cases and what each is about, in order. */
  readonly cases: Readonly<Record<string, string>>;
  /** Plays every case, each on a kernel model of its own. */
  play(uapi: JudgedUapi): Promise<readonly CaseVerdict[]>;
}

/**
 * Plays a scenario on a UAPI. Runs anywhere, and takes milliseconds; the same every time. A case that comes out wrong
 * is a verdict, no exception.
 */
export async function playScenario(scenario: Scenario, uapi: JudgedUapi): Promise<ScenarioVerdict> {
  const cases = await scenario.play(uapi);
  return { scenario: scenario.name, uapi: uapi.name, grade: worstOf(cases), cases };
}

/** The worst grade of some cases; `works` of none. */
export function worstOf(cases: readonly Pick<CaseVerdict, 'grade'>[]): Grade {
  const ranks = cases.map(({ grade }) => GRADES.indexOf(grade));
  return GRADES[Math.max(0, ...ranks)]!;
}
