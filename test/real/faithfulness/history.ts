import fc, { type Arbitrary } from 'fast-check';
import { type AccessSite, type PageRange, type Resolution, type Verb } from '../../../src/api/index.js';

export const PAGES = 4;
/** Accessors; each has bytes of its own in every page, so that it does not matter who of two comes first. */
export const ACCESSORS = 2;

/** How pages are dropped, or that somebody looks past the mapping that is watched. */
export type Drop = 'dontneed' | 'remove' | 'punch';

export type Step =
  /** Byte `value` is written, or one is read; ignored while the accessor waits. */
  | {
      readonly do: 'access';
      readonly who: number;
      readonly site: AccessSite;
      readonly page: number;
      readonly value: number;
    }
  /** One at a time; ignored while it waits. */
  | { readonly do: 'drop'; readonly how: Drop; readonly pages: PageRange }
  | { readonly do: 'take' }
  | ResolveStep;

export interface ResolveStep {
  readonly do: 'resolve';
  readonly verb: Verb;
  readonly pages: PageRange;
  /** What the pages are filled with, where the verb brings contents. */
  readonly value: number;
  readonly noWake: boolean;
  readonly protect: boolean;
  readonly fill: boolean;
}

/** The step as a port takes it, with its contents at the beginning of staging. */
export function resolutionOf({ verb, pages, noWake, protect, fill }: ResolveStep): Resolution {
  const from = verb === 'copy' || verb === 'move' || fill ? { from: 0 } : {};
  return { verb, pages, protect, wake: !noWake, ...from } as Resolution;
}

/** Somebody on whom histories are played: the model or the machine. */
export interface World {
  /**
   * Does a step, waits until everybody it set going has ended or waits, and tells all that can be observed.
   */
  step(step: Step): Promise<string>;
  /** Lets everybody go who still waits. */
  close(): Promise<void>;
}

/** The sites that histories access from; each reads or writes. */
export const WRITES = {
  'vmm-load': false,
  'vmm-store': true,
  'vmm-syscall': true,
  'external-vm-readv': false,
  'external-mapping': undefined,
} as const;
export type Site = keyof typeof WRITES;
/** Past the mapping both are done: odd values are written. */
export const siteWrites = (site: AccessSite, value: number): boolean =>
  WRITES[site as Site] ?? value % 2 === 1;

export interface Alphabet {
  readonly sites: readonly Site[];
  readonly verbs: readonly Verb[];
  readonly drops: readonly Drop[];
}

export function histories({ sites, verbs, drops }: Alphabet): Arbitrary<Step[]> {
  const page = fc.nat(PAGES - 1);
  const value = fc.integer({ min: 1, max: 200 });
  const pages = fc
    .tuple(page, fc.integer({ min: 1, max: 3 }))
    .map(([first, count]) => ({ first, count: Math.min(count, PAGES - first) }));
  const access = fc.record({
    do: fc.constant('access' as const),
    who: fc.nat(ACCESSORS - 1),
    site: fc.constantFrom<AccessSite>(...sites),
    page,
    value,
  });
  const resolve = fc
    .record({
      do: fc.constant('resolve' as const),
      verb: fc.constantFrom(...verbs),
      pages,
      value,
      noWake: fc.boolean(),
      protect: fc.boolean(),
      fill: fc.boolean(),
    })
    .map((step) => sane(step, verbs.includes('writeprotect')));
  const drop = fc.record({ do: fc.constant('drop' as const), how: fc.constantFrom(...drops), pages });
  const take = fc.constant({ do: 'take' as const });
  const choices = [
    { weight: 4, arbitrary: access },
    { weight: 4, arbitrary: resolve },
    { weight: 3, arbitrary: take },
    ...(drops.length > 0 ? [{ weight: 1, arbitrary: drop }] : []),
  ];
  return fc.array(fc.oneof(...choices), { minLength: 1, maxLength: 14, size: 'max' });
}

/** Flags only where they mean something: a port is not asked for what is no request. */
function sane(step: ResolveStep, watchesWrites: boolean): ResolveStep {
  const { verb } = step;
  const protects = verb === 'writeprotect' || verb === 'rwprotect';
  return {
    ...step,
    fill: verb === 'continue' && step.fill,
    protect: (protects || (watchesWrites && (verb === 'copy' || verb === 'continue'))) && step.protect,
    noWake: step.noWake && verb !== 'wake' && !protects,
  };
}

/**
 * Ends every history: everything is answered, whoever waits goes on, and every byte that anybody wrote is
 * read.
 */
function closing({ verbs }: Alphabet): Step[] {
  const resolve = (verb: Verb, first: number, count = 1): Step[] =>
    verbs.includes(verb)
      ? [
          {
            do: 'resolve',
            verb,
            pages: { first, count },
            value: 201,
            noWake: false,
            protect: false,
            fill: false,
          },
        ]
      : [];
  const pages = Array.from({ length: PAGES }, (_, page) => page);
  const round: Step[] = [
    { do: 'take' },
    ...pages.flatMap((page) => [...resolve('copy', page), ...resolve('continue', page)]),
    ...resolve('writeprotect', 0, PAGES),
    ...resolve('wake', 0, PAGES),
  ];
  const look = pages.flatMap((page) =>
    Array.from({ length: ACCESSORS }, (_, who): Step => ({
      do: 'access',
      who,
      site: 'external-vm-readv',
      page,
      value: 0,
    })),
  );
  return [...round, ...round, ...look];
}

/** Plays a history on both and says where they first differ; undefined where they do not. Closes both. */
export async function difference(
  model: World,
  machine: World,
  history: readonly Step[],
  alphabet: Alphabet,
): Promise<string | undefined> {
  try {
    const told: string[] = [];
    for (const step of [...history, ...closing(alphabet)]) {
      const [ours, theirs] = [await model.step(step), await machine.step(step)];
      if (ours !== theirs)
        return [...told, wordsOf(step), `  model:   ${ours}`, `  machine: ${theirs}`].join('\n');
      told.push(`${wordsOf(step)}: ${ours}`);
    }
    return undefined;
  } finally {
    await model.close();
    await machine.close();
  }
}

function wordsOf(step: Step): string {
  const range = 'pages' in step ? ` ${step.pages.first}+${step.pages.count}` : '';
  switch (step.do) {
    case 'access':
      return `accessor ${step.who} ${step.site} page ${step.page}`;
    case 'drop':
      return `${step.how}${range}`;
    case 'take':
      return 'take';
    case 'resolve': {
      const flags = (['noWake', 'protect', 'fill'] as const).filter((flag) => step[flag]);
      return [`${step.verb}${range}`, ...flags].join(' ');
    }
  }
}
