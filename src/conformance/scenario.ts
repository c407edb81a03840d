import fc, { type Arbitrary } from 'fast-check';
import { type AccessSite, type PageIndex, type PageRange } from '../api/index.js';
import { type Manifest } from './property.js';
import { type Operation, type OperationRef } from './failure.js';
import { type Body, pause, settled, type Environment, type Task, type Touch } from './environment.js';

/** One thing that a scenario does. `wait`: before the next, it is waited for. */
export type Action = AccessAction | RangeAction;

interface AccessAction {
  readonly do: 'read' | 'write';
  readonly site: AccessSite;
  readonly page: PageIndex;
  readonly wait: boolean;
}

interface RangeAction {
  readonly do: Operation | 'discard' | 'unmap';
  readonly pages: PageRange;
  readonly wait: boolean;
}

export interface ScenarioOptions {
  readonly pages: number;
  readonly of: readonly Action['do'][];
  /** Sites of reads and writes; default: those that wait for a page. */
  readonly sites?: readonly AccessSite[];
  readonly most?: number;
  /** Whether actions may be waited for. Default: as generated. */
  readonly wait?: boolean;
  /** Most pages in one range. */
  readonly span?: number;
}

/** Sites at which a missing page makes the accessor wait until it is brought. */
export const waitingSites = ({ coverage, sites }: Manifest): readonly AccessSite[] =>
  coverage
    .filter(({ site, effect }) => sites.includes(site) && (effect === 'blocks' || effect === 'exits'))
    .map(({ site }) => site);

/** Loads, fetches and walks only read; stores only write; the others do both. */
export const canRead = (site: AccessSite): boolean => !site.endsWith('-store');
export const canWrite = (site: AccessSite): boolean => !/-(load|fetch|walk)$/.test(site);

/** Those of a manifest's actions that its backend declares. */
export function possible(manifest: Manifest, wanted: readonly Action['do'][]): readonly Action['do'][] {
  const { supports, discards, deterministic } = manifest;
  const needs: Partial<Record<Action['do'], boolean>> = {
    'discard-refetch': supports.discard,
    'discard-zero': supports.discard,
    // Without an event a removal is not noticed, and nothing can be said of it.
    discard: discards && supports.events.includes('remove'),
    unmap: deterministic && supports.events.includes('unmap'),
    poison: supports.verbs.includes('poison'),
    protect: supports.verbs.includes('writeprotect'),
    unprotect: supports.verbs.includes('writeprotect'),
  };
  return wanted.filter((what) => needs[what] ?? true);
}

/** More than there are sites; which one is meant is the remainder. */
const SITE_CHOICES = 59;

/** Generates scenarios. */
export function scenario(manifest: Manifest, options: ScenarioOptions): Arbitrary<readonly Action[]> {
  const { pages, most = 10, span = 4 } = options;
  const sites = options.sites ?? waitingSites(manifest);
  const readers = sites.filter(canRead);
  const writers = sites.filter((site) => canWrite(site) && !manifest.readOnly.includes(site));
  const kinds = possible(manifest, options.of).filter((what) =>
    what === 'read' ? readers.length > 0 : what !== 'write' || writers.length > 0,
  );
  const action = fc
    .tuple(
      fc.nat(kinds.length - 1),
      fc.nat(pages - 1),
      fc.integer({ min: 1, max: span }),
      fc.nat(SITE_CHOICES),
      fc.boolean(),
    )
    .map(([kind, page, length, site, wait]): Action => {
      const what = kinds[kind]!;
      const waits = options.wait ?? wait;
      if (what === 'read' || what === 'write') {
        const possible = what === 'read' ? readers : writers;
        return { do: what, site: possible[site % possible.length]!, page, wait: waits };
      }
      return { do: what, pages: { first: page, count: Math.min(length, pages - page) }, wait: waits };
    });
  return fc.array(action, { minLength: 1, maxLength: most });
}

/** What a scenario has started. */
export interface Started {
  readonly tasks: Task[];
  readonly reads: Touch[];
  readonly writes: Touch[];
  /** Removals by any thread: what reads as zeros after. */
  readonly removals: { readonly pages: PageRange; readonly task: Task }[];
}

export const noneStarted = (): Started => ({ tasks: [], reads: [], writes: [], removals: [] });

function begin(environment: Environment, { do: what, pages }: RangeAction): Task<OperationRef> {
  if (what === 'discard') return environment.discard(pages);
  return what === 'unmap' ? environment.unmap(pages) : environment.pager.do(what, pages);
}

/** Does one action. `offset`: where in the page accesses are made. */
export function act(
  environment: Environment,
  action: Action,
  into: Started,
  { offset = 0, pieces = 1, whole = false } = {},
): Task {
  const { tasks, reads, writes, removals } = into;
  if ('site' in action) {
    const { site, page } = action;
    const length = whole ? environment.contents.page_bytes : 8;
    const touch = environment.touch(
      action.do === 'write'
        ? { site, page, offset, bytes: stamp(writes.length) }
        : { site, page, offset, length, pieces },
    );
    (action.do === 'write' ? writes : reads).push(touch);
    tasks.push(touch);
    return touch;
  }
  const task = begin(environment, action);
  if (action.do === 'discard' || action.do === 'discard-zero') removals.push({ pages: action.pages, task });
  tasks.push(task);
  return task;
}

/** Eight bytes that no source and no other write has. */
export const stamp = (number: number): Uint8Array =>
  Uint8Array.of(0xee, 0xee, 0xee, 0xee, 0xee, number >>> 8, number & 0xff, 0xee);

/**
 * Runs a scenario and waits for everything in it. What is frozen is thawed at the end, and before
 * anything is waited for that a frozen page could hold up.
 */
export function* runActions(
  environment: Environment,
  actions: readonly Action[],
  into: Started,
  options: { offset?: number; pieces?: number; whole?: boolean } = {},
): Body {
  let frozen = false;
  for (const action of actions) {
    const task = act(environment, action, into, options);
    frozen ||= action.do === 'freeze';
    if (action.wait && !frozen) yield settled(task);
    else yield pause;
  }
  if (frozen) yield settled(environment.pager.do('thaw', everything(environment)));
  yield settled(...into.tasks);
}

export const everything = (environment: Environment): PageRange => ({
  first: 0,
  count: environment.setting.pages,
});

export const covers = ({ first, count }: PageRange, page: PageIndex): boolean =>
  page >= first && page < first + count;
