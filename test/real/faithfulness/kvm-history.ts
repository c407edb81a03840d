import fc, { type Arbitrary } from 'fast-check';
import { type AccessSite } from '../../../src/api/index.js';

export const PAGES = 4;
/** Of each page: its value, which is what accesses read and write, and a place to jump to. */
export const AT = { value: 0x200, code: 0x100 } as const;

/** Something happens to one page. */
export type Step =
  | { readonly do: 'access'; readonly site: AccessSite; readonly page: number; readonly value: number }
  /** Contents through the VMM's mapping, then a live slot. */
  | { readonly do: 'install'; readonly page: number; readonly value: number }
  | { readonly do: 'discard-refetch'; readonly page: number };

export interface World {
  /** What came of it. */
  step(step: Step): string;
  close(): Promise<void>;
}

export function histories(sites: readonly AccessSite[]): Arbitrary<Step[]> {
  const page = fc.nat(PAGES - 1);
  const value = fc.integer({ min: 1, max: 200 });
  const site = fc.constantFrom(...sites);
  return fc.array(
    fc.oneof(
      { weight: 4, arbitrary: fc.record({ do: fc.constant('access' as const), site, page, value }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('install' as const), page, value }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('discard-refetch' as const), page }) },
    ),
    { minLength: 1, maxLength: 12, size: 'max' },
  );
}

/** Plays a history on both and says where they first differ; undefined where they do not. Closes both. */
export async function difference(
  model: World,
  machine: World,
  history: readonly Step[],
): Promise<string | undefined> {
  try {
    const told: string[] = [];
    for (const step of history) {
      const what = `${step.do === 'access' ? step.site : step.do} ${step.page}`;
      const [ours, theirs] = [model.step(step), machine.step(step)];
      if (ours !== theirs) return [...told, what, `  model:   ${ours}`, `  machine: ${theirs}`].join('\n');
      told.push(`${what}: ${ours}`);
    }
    return undefined;
  } finally {
    await model.close();
    await machine.close();
  }
}
