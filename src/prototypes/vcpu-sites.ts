import { type AccessSite, classOf, SITE_NAMES } from '../api/index.js';
import { type ModelMechanism, type SiteMechanisms } from '../backends/memory/index.js';

/** Stage-2 and its walks: what a mechanism in KVM's fault path intercepts. */
export const VCPU_SITES: readonly AccessSite[] = SITE_NAMES.filter((site) => classOf(site) === 'vcpu');

/** KVM's own accesses to contents; a visibility check reads none. */
export const KERNEL_SITES: readonly AccessSite[] = ['kernel-copy', 'kernel-cached-pfn'];

export const before = (sites: readonly AccessSite[], mechanism: ModelMechanism): SiteMechanisms =>
  Object.fromEntries(sites.map((site) => [site, [mechanism]]));
