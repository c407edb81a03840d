import { type AccessSite } from '../../api/index.js';
import {
  type CheckOptions,
  checkProperty,
  failureText,
  formatTrace,
  type RealSubject,
} from '../../conformance/index.js';
import { propertyOf } from '../evaluation/cell.js';
import { cReproducer } from './c-program.js';
import { type Wrong, wrongIn } from './oracle.js';
import { Record } from './record.js';
import { recordedSubject } from './recorded-backend.js';

/** A failure that was repeated with everything at the kernel recorded: a program that shows it, or why there is none. */
export type RecordedFailure = { readonly wrong: Wrong; readonly program: string } | { readonly why: string };

const without = (why: string): RecordedFailure => ({ why });

/**
 * Runs a property on a real kernel until it fails, recording what happens at the kernel, and makes a C program of the
 * failing run.
 */
export async function recordFailure(
  title: string,
  site: AccessSite | undefined,
  subject: RealSubject,
  options: CheckOptions,
): Promise<RecordedFailure> {
  const record = new Record();
  const at = site === undefined ? subject : { ...subject, sites: [site] };
  const result = await checkProperty(propertyOf(title)!, recordedSubject(at, record), options);
  if (result.outcome !== 'fails') return without('repeated, it did not fail');
  // A subject that wraps nothing about its kernel has no traffic to be made a program of.
  if (record.pageCount === 0) return without(`the programs know userfaultfd alone, not ${subject.name}`);
  const wrong = wrongIn(record);
  if (!wrong)
    return without('what fails is not to be seen at the kernel: no access hangs or reads what it must not');
  const where = site === undefined ? title : `${title} at ${site}`;
  const program = cReproducer(record, wrong, {
    title: `${where}, on ${subject.name}: ${failureText(result.failure).split('\n')[0]}`,
    trace: formatTrace(result.trace),
  });
  return program === undefined
    ? without('the run has what the programs have no words for')
    : { wrong, program };
}
