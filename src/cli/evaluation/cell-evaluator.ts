import { type AccessSite } from '../../api/index.js';
import {
  type AnyProperty,
  checkProperty,
  type CheckOptions,
  openManifest,
  type Manifest,
  type Result,
  type Subject,
  unnoticedAccess,
} from '../../conformance/index.js';
import { recordFailure } from '../reproducer/record-failure.js';
import { type Cell, type CellResult, propertyOf } from './cell.js';

/** Evaluates cells of one subject, in this process. */
export class CellEvaluator {
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
  async evaluate(cell: Cell): Promise<CellResult> {
    return { ...cell, ...(await this.#resultOf(cell)) };
  }

  async #resultOf(cell: Cell): Promise<Result & Pick<CellResult, 'reproducer'>> {
    try {
      const property = propertyOf(cell.property)!;
      return cell.site === undefined
        ? await this.#checked(cell, property, this.#subject)
        : await this.#at(cell, property, cell.site);
    } catch (thrown) {
      return { outcome: 'fails', failure: { kind: 'thrown', error: textOf(thrown) }, trace: [], runs: 0 };
    }
  }

  async #at(cell: Cell, property: AnyProperty, site: AccessSite): Promise<Result> {
    const { coverage } = await this.manifest();
    const effect = coverage.find((row) => row.site === site)?.effect ?? 'unmediated';
    // What is unmediated is held to its declaration, and to nothing else.
    if (effect === 'unmediated' && property.name !== 'coverage-is-true')
      return this.#unmediated(property, site);
    if (!this.#subject.sites.includes(site)) return { outcome: 'skipped' };
    return this.#checked(cell, property, { ...this.#subject, sites: [site] });
  }

  /** A failure on a real kernel is repeated, recorded, for a C program of it. */
  async #checked(
    { property: title, site }: Cell,
    property: AnyProperty,
    subject: Subject,
  ): Promise<Result & Pick<CellResult, 'reproducer'>> {
    const result = await this.#check(property, subject);
    if (result.outcome !== 'fails' || this.#subject.deterministic) return result;
    const again = await recordFailure(title, site, this.#subject, this.#options);
    return { ...result, reproducer: 'why' in again ? again : { program: again.program } };
  }

  /** One property shows what it means; the others refer to it. */
  async #unmediated(property: AnyProperty, site: AccessSite): Promise<Result> {
    const shown =
      property.name === unnoticedAccess.name && property.part === undefined
        ? await this.#check(unnoticedAccess, this.#witness(site))
        : undefined;
    return shown?.outcome === 'fails'
      ? { outcome: 'unmediated', failure: shown.failure, trace: shown.trace }
      : { outcome: 'unmediated', failure: undefined, trace: [] };
  }

  /** Private memory has no second mapping: on a model, shared memory shows it. */
  #witness(site: AccessSite): Subject {
    const subject = this.#subject;
    if (subject.sites.includes(site)) return { ...subject, sites: [site] };
    return subject.deterministic && site === 'external-mapping'
      ? { ...subject, memory: 'shmem', sites: [site] }
      : { ...subject, sites: [] };
  }

  async #check(property: AnyProperty, subject: Subject): Promise<Result> {
    const {
      name: _name,
      part: _part,
      claim: _claim,
      ...result
    } = await checkProperty(property, subject, this.#options);
    return result;
  }
}

export const textOf = (thrown: unknown): string =>
  thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
