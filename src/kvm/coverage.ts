import { type AccessSite, type Coverage, type Effect, SITE_NAMES, type SiteCoverage } from '../api/access.js';
import { type MemoryLayout } from '../api/layout.js';

/** An effect for each site. */
export type Effects = Readonly<Record<AccessSite, Effect>>;

const ADDRESSED: readonly Effect[] = ['blocks', 'exits'];

/** The rows of a table of effects, for a layout. `chunk`: pages that vCPUs find present or missing together. */
export function coverageOf(effects: Effects, layout: MemoryLayout, chunk: number): Coverage {
  const evidence = 'declared';
  const pageBytes = Math.max(...layout.regions.map(({ pageSize }) => pageSize));
  return SITE_NAMES.map((site): SiteCoverage => {
    const effect = effects[site];
    const granuleBytes = effect === 'exits' ? pageBytes * chunk : pageBytes;
    return { site, effect, granuleBytes, address: ADDRESSED.includes(effect) ? 'exact' : 'none', evidence };
  });
}
