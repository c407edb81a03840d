import { SITE_NAMES } from 'demand-paging';
import { type SteppedSubject } from 'demand-paging/conformance';
import { memoryBackend, type ModelAttachment, type ModelOptions } from 'demand-paging/backends/memory';

/** Enough for a few pages, so that staging fills up. */
const STAGING_BYTES = 6 * 4096;

/** The kernel model as a subject, every site of which can be exercised. */
export function modelSubject(name: string, options: ModelOptions = {}, more: Partial<SteppedSubject> = {}): SteppedSubject {
  return {
    name,
    deterministic: true,
    sites: SITE_NAMES.filter((site) => site !== 'kernel-visibility' && (more.memory === 'shmem' || site !== 'external-mapping')),
    backend: () => memoryBackend({ stagingBytes: STAGING_BYTES, ...options }),
    stepping: (attachment) => (attachment as ModelAttachment).kernel,
    ...more,
  };
}
