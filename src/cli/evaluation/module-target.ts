import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { DemandPagingError, requirements } from '../../api/index.js';
import { type Subject } from '../../conformance/index.js';
import { type Uapi } from '../../prototypes/index.js';
import { inUse } from '../../scenarios/index.js';
import { type Target, TARGETS, prototypeTarget } from './target.js';
import { MEMORY } from '../conformance-subjects.js';

/** What `--backend` and `uapi` take: a name of {@link TARGETS}, or the path of a module. */
export const isPath = (text: string): boolean => /[/\\]|\.[cm]?[jt]s$/.test(text);

export const targetNames = (): readonly string[] => [MEMORY, ...TARGETS].map(({ name }) => name);

/**
 * The target of a name, or of a module: its default export is what {@link defineUapi} returns, or a subject of the
 * conformance suite; its export `use`, if there is one, says how the prototype is put to use.
 *
 * Runs the module. Errors: MODULE_NOT_FOUND, MODULE_FAILED (it throws while it is loaded), NOT_A_UAPI.
 */
export async function loadTarget(text: string): Promise<Target> {
  if (!isPath(text)) return namedTarget(text);
  const exports = await load(text);
  const value = exports['default'];
  if (value === undefined) {
    const others = Object.keys(exports).join(', ') || 'nothing';
    throw new DemandPagingError('NOT_A_UAPI', `${text} has no default export; it exports ${others}`, {
      hint: 'Write `export default` before what defineUapi returns',
    });
  }
  if (isUapi(value)) return prototypeTarget(inUse(value, useOf(exports['use'], text)), 'module');
  if (isSubject(value)) return subjectTarget(value);
  throw new DemandPagingError(
    'NOT_A_UAPI',
    `the default export of ${text} is ${describe(value)}, and neither what defineUapi returns nor a subject`,
    { hint: 'docs/prototyping.md goes from an empty file to a verdict' },
  );
}

function namedTarget(name: string): Target {
  const found = [MEMORY, ...TARGETS].find((target) => target.name === name);
  if (found) return found;
  throw new DemandPagingError('MODULE_NOT_FOUND', `there is no backend '${name}'`, {
    hint: `It takes the path of a module, or one of: ${targetNames().join(', ')}`,
  });
}

async function load(path: string): Promise<Record<string, unknown>> {
  const file = resolve(path);
  try {
    return (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (thrown) {
    throw loadFailure(path, file, thrown);
  }
}

function loadFailure(path: string, file: string, thrown: unknown): DemandPagingError {
  const { code, message = String(thrown), stack } = (thrown ?? {}) as NodeJS.ErrnoException;
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION' && /\.[cm]?ts$/.test(path))
    return new DemandPagingError('MODULE_FAILED', `this Node.js reads no TypeScript: ${path}`, {
      cause: thrown,
      hint: 'Compile it first (npx tsc --module nodenext), or take Node.js 22.18 or later',
    });
  // What is missing may also be something that the module imports.
  const itself = code === 'ERR_MODULE_NOT_FOUND' && message.includes(`'${file}'`);
  if (itself)
    return new DemandPagingError('MODULE_NOT_FOUND', `there is no file ${path}`, {
      cause: thrown,
      hint: 'It takes the path of a JavaScript module, from here or absolute',
    });
  const why = code === 'ERR_MODULE_NOT_FOUND' ? message : firstLines(stack ?? message);
  return new DemandPagingError('MODULE_FAILED', `${path} cannot be loaded: ${why}`, { cause: thrown });
}

const STACK_LINES = 6;
const firstLines = (text: string): string => text.split('\n').slice(0, STACK_LINES).join('\n');

/** By shape: a module may have a copy of this library of its own. */
function isUapi(value: unknown): value is Uapi<object> {
  const { subject, backend, header, definition } = fieldsOf(value);
  return [subject, backend, header].every((method) => typeof method === 'function') && !!definition;
}

function isSubject(value: unknown): value is Subject {
  const { name, deterministic, backend, sites } = fieldsOf(value);
  const typed = typeof name === 'string' && typeof deterministic === 'boolean';
  return typed && typeof backend === 'function' && Array.isArray(sites);
}

const fieldsOf = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};

function useOf(use: unknown, path: string): object {
  if (use === undefined) return {};
  if (typeof use === 'object' && use !== null) return use;
  throw new DemandPagingError(
    'NOT_A_UAPI',
    `the export 'use' of ${path} is ${describe(use)}, and no options`,
  );
}

const subjectTarget = (subject: Subject): Target => ({
  name: subject.name,
  title: subject.name,
  group: 'module',
  status: 'a subject of its own',
  probe: () => requirements([]),
  subject: () => subject,
});

function describe(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value === 'object') return `an object with ${Object.keys(value).join(', ') || 'nothing in it'}`;
  return `a ${typeof value}`;
}
