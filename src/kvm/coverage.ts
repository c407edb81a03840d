import { type AccessSite, type Coverage, type Effect, SITE_NAMES, type SiteCoverage } from '../api/access.js';
import { type MemoryLayout } from '../api/layout.js';

/** An effect for each site. */
export type Effects = Readonly<Record<AccessSite, Effect>>;

/**
 * The effect of an access to a hole in the memslots. A hole is no memory: only an access that KVM can emulate
 * as MMIO exits with the data asked for. A locked access becomes a read and a write, which are not atomic.
 * Instruction fetches and page walks cannot be emulated: KVM injects a fault, an abort on arm64 and a page
 * fault on x86; where KVM shadows the guest's page tables, KVM_RUN fails for a vCPU that fetches from a hole.
 * `twoStages`: the processor translates in two stages.
 */
export const holeEffects = (
  twoStages: boolean,
): Pick<Effects, 'vcpu-atomic' | 'vcpu-fetch' | 'vcpu-walk'> => ({
  'vcpu-atomic': 'unmediated',
  'vcpu-fetch': twoStages ? 'injects' : 'errors',
  'vcpu-walk': 'injects',
});

const ADDRESSED: readonly Effect[] = ['blocks', 'exits'];

/**
 * The rows of a table of effects, for a layout. `chunk`: pages that vCPUs find present or missing together.
 */
export function coverageOf(effects: Effects, layout: MemoryLayout, chunk: number): Coverage {
  const evidence = 'declared';
  const page_bytes = Math.max(...layout.regions.map(({ pageSize }) => pageSize));
  return SITE_NAMES.map((site): SiteCoverage => {
    const effect = effects[site];
    const granule_bytes = effect === 'exits' ? page_bytes * chunk : page_bytes;
    return { site, effect, granule_bytes, address: ADDRESSED.includes(effect) ? 'exact' : 'none', evidence };
  });
}
