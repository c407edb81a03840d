import { type AccessSite, type Coverage, type Effect, SITE_NAMES, type SiteCoverage } from '../api/access.js';
import { type MemoryLayout } from '../api/layout.js';

/** An effect for each site. */
export type Effects = Readonly<Record<AccessSite, Effect>>;

/**
 * What a vCPU meets in a hole of the memslots: a hole is no memory, and only what KVM can emulate as device access comes out
 * with the data asked for. A locked access becomes a read and a write, which are not atomic. Code and page tables cannot be
 * emulated: x86 gives the vCPU up, or the guest meets a fault of its own that ends in a triple fault; arm64 puts an abort to
 * the guest. `twoStages`: the processor translates in two stages, or KVM shadows the guest's page tables.
 */
export const holeEffects = (
  twoStages: boolean,
): Pick<Effects, 'vcpu-atomic' | 'vcpu-fetch' | 'vcpu-walk'> => ({
  'vcpu-atomic': 'unmediated',
  'vcpu-fetch': twoStages ? 'injects' : 'errors',
  'vcpu-walk': twoStages && process.arch !== 'arm64' ? 'errors' : 'injects',
});

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
