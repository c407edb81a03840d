import { ACCESS_SITES, type AccessSite, classOf, SITE_NAMES } from 'demand-paging';
import { type SteppedSubject } from 'demand-paging/conformance';
import {
  blocking,
  erroring,
  exiting,
  injecting,
  memoryBackend,
  type ModelAttachment,
  type ModelMechanism,
  type ModelOptions,
  type SiteMechanisms,
} from 'demand-paging/backends/memory';

/** So few that staging fills up. */
const STAGING_PAGES = 6;

/** The kernel model as a subject: every site of it can be exercised. */
export function modelSubject(
  name: string,
  options: ModelOptions = {},
  more: Partial<SteppedSubject> = {},
): SteppedSubject {
  const shared = (more.memory ?? 'anonymous') !== 'anonymous';
  return {
    name,
    deterministic: true,
    sites: SITE_NAMES.filter(
      (site) => site !== 'kernel-visibility' && (shared || site !== 'external-mapping'),
    ),
    backend: () => memoryBackend({ staging_bytes: STAGING_PAGES * (more.page_bytes ?? 4096), ...options }),
    stepping: (attachment) => (attachment as ModelAttachment).kernel,
    ...more,
  };
}

/** A mechanism for each site, as `choose` says. */
function sites(choose: (site: AccessSite) => ModelMechanism | undefined): SiteMechanisms {
  const chosen = (Object.keys(ACCESS_SITES) as AccessSite[])
    .filter((site) => site !== 'external-mapping' && site !== 'kernel-visibility')
    .map((site) => [site, choose(site)] as const);
  return Object.fromEntries(chosen.flatMap(([site, one]) => (one ? [[site, [one]]] : [])));
}

const [blocks, exits, errors, injects] = [blocking(), exiting(), erroring(), injecting()];
const byClass = (
  of: Partial<Record<ReturnType<typeof classOf>, ModelMechanism | undefined>>,
): SiteMechanisms => sites((site) => (classOf(site) in of ? of[classOf(site)] : blocks));

/** The model in the shapes that real backends have. */
export const MODEL_SUBJECTS: readonly SteppedSubject[] = [
  modelSubject('the model: every access waits'),
  modelSubject('the model: shared memory', {}, { memory: 'shmem' }),
  modelSubject('the model: shared memory, filled in place', { install: 'continue' }, { memory: 'shmem' }),
  modelSubject('the model: huge pages', {}, { memory: 'hugetlb', page_bytes: 16384 }),
  modelSubject('the model: vCPUs exit, the rest waits', { sites: byClass({ vcpu: exits }) }),
  modelSubject("the model: the kernel's own accesses fail", { sites: byClass({ kernel: errors }) }),
  modelSubject('the model: every access fails', { sites: sites(() => errors) }),
  modelSubject('the model: vCPUs take aborts, others are not noticed', {
    sites: byClass({ vcpu: injects, external: undefined }),
  }),
  modelSubject('the model: pages are moved in', { install: 'move' }),
  modelSubject('the model: the least of verbs', { verbs: ['copy', 'wake', 'zeropage'], events: ['remove'] }),
  modelSubject('the model: nothing is announced', { events: [] }),
];
