import { type AccessSite } from '../../api/index.js';
import {
  type AnyProperty,
  checkProperty,
  type CheckOptions,
  openManifest,
  type Manifest,
  type Report,
  type Subject,
  titleOf,
  unnoticedAccess,
} from '../../conformance/index.js';
import { recordFailure } from '../reproducer/record-failure.js';
import { type Cell, type CellVerdict, OUT_OF_REACH, propertyOf } from './cell.js';

/** Judges cells of one subject, in this process. */
export class CellJudge {
  readonly #subject: Subject;
  readonly #options: CheckOptions;
  #manifest: Manifest | undefined;

  constructor(subject: Subject, options: CheckOptions) {
    this.#subject = subject;
    this.#options = options;
  }

  async manifest(): Promise<Manifest> {
    return (this.#manifest ??= await openManifest(this.#subject));
  }

  /** Never throws: what the subject throws is a failure of the cell. */
  async judge({ property: title, site }: Cell): Promise<CellVerdict> {
    try {
      const property = propertyOf(title)!;
      if (site === undefined)
        return await this.#withReproducer(
          { property: title, site },
          verdictOf(await this.#check(property, this.#subject)),
        );
      return await this.#judgeAt(property, site);
    } catch (thrown) {
      return { verdict: 'fails', what: `it throws: ${textOf(thrown)}`, story: [], runs: 0 };
    }
  }

  async #judgeAt(property: AnyProperty, site: AccessSite): Promise<CellVerdict> {
    const { coverage } = await this.manifest();
    const effect = coverage.find((row) => row.site === site)?.effect ?? 'unmediated';
    const reachable = this.#subject.sites.includes(site);
    // What is unmediated is held to its declaration, and to nothing else.
    if (effect === 'unmediated' && property.name !== 'coverage-is-true')
      return this.#unmediated(property, site);
    if (!reachable) return { verdict: 'not-applicable', reason: OUT_OF_REACH };
    const verdict = verdictOf(await this.#check(property, { ...this.#subject, sites: [site] }));
    return await this.#withReproducer({ property: titleOf(property), site }, verdict);
  }

  /** A failure on a real kernel is played again, recorded, for a C program of it. */
  async #withReproducer({ property, site }: Cell, verdict: CellVerdict): Promise<CellVerdict> {
    const subject = this.#subject;
    if (verdict.verdict !== 'fails' || subject.deterministic) return verdict;
    const again = await recordFailure(property, site, subject, this.#options);
    return again.program === undefined
      ? { ...verdict, noReproducer: again.why }
      : { ...verdict, reproducer: again.program };
  }

  /** One property shows what it means; the others refer to it. */
  async #unmediated(property: AnyProperty, site: AccessSite): Promise<CellVerdict> {
    const what = 'nobody stands there: an access to a missing page goes through, and nobody is told';
    if (property.name !== unnoticedAccess.name || property.part !== undefined)
      return { verdict: 'unmediated', what, story: [] };
    const report = await this.#check(unnoticedAccess, this.#witness(site));
    if (report.outcome !== 'failed') return { verdict: 'unmediated', what, story: [] };
    const { counterexample } = report;
    return { verdict: 'unmediated', what: counterexample.what, story: counterexample.story };
  }

  /** Private memory has no second mapping: on a model, shared memory shows it. */
  #witness(site: AccessSite): Subject {
    const subject = this.#subject;
    if (subject.sites.includes(site)) return { ...subject, sites: [site] };
    return subject.deterministic && site === 'external-mapping'
      ? { ...subject, memory: 'shmem', sites: [site] }
      : { ...subject, sites: [] };
  }

  #check(property: AnyProperty, subject: Subject): Promise<Report> {
    return checkProperty(property, subject, this.#options);
  }
}

function verdictOf(report: Report): CellVerdict {
  switch (report.outcome) {
    case 'held':
      return { verdict: 'holds', runs: report.runs };
    case 'skipped':
      return { verdict: 'not-applicable', reason: report.reason };
    case 'failed':
      return { verdict: 'fails', ...report.counterexample, runs: report.runs };
  }
}

export const textOf = (thrown: unknown): string =>
  thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
