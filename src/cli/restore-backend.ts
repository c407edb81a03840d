import { MessageChannel } from 'node:worker_threads';
import { setTimeout } from 'node:timers/promises';
import {
  type AccessSite,
  type Backend,
  DemandPagingError,
  type MemoryLayout,
  openSource,
  servePort,
  type SourceRef,
} from '../api/index.js';
import {
  type Accessor,
  ModelAccessor,
  NATIVE_SITES,
  type NativeSite,
  startAccessor,
} from '../accessors/index.js';
import { memoryBackend } from '../backends/memory/index.js';
import { userfaultfd } from '../backends/userfaultfd/index.js';
import { file } from '../sources/index.js';
import { type GuestSite } from '../guests/index.js';
import { RestoredGuest } from './restored-guest.js';
import { type ChosenBackend, type RestoreJob } from './restore-job.js';

/** A backend, and how accesses to its memory are made. */
export interface Served {
  readonly chosen: ChosenBackend;
  readonly backend: Backend;
  /** Where accesses are made from. */
  readonly sites: readonly AccessSite[];
  startAccessor(site: AccessSite, layout: MemoryLayout): Promise<Accessor>;
  /** Once the accessors have stopped, and while the memory is still there. */
  close(): void;
}

/**
 * The backend that is wished for, or, for `auto`, the best that this host has. What a named backend lacks is
 * for the pager to say.
 */
export function chooseBackend({ backend: wish }: Pick<RestoreJob, 'backend'>): Served {
  const real = userfaultfd();
  if (wish === 'userfaultfd') return native(real);
  if (wish === 'memory') return model(undefined);
  const lacking = real.probe().list.filter(({ met }) => !met);
  if (lacking.length === 0) return native(real);
  return model({
    from: real.name,
    why: lacking.map(({ what, found }) => `${what}: ${found}`).join('; '),
    remedy: lacking.map(({ remedy }) => remedy).join('; '),
  });
}

/** Threads, a process and, where KVM is available, vCPUs. */
function native(backend: Backend): Served {
  const guest = new RestoredGuest();
  return {
    chosen: { name: backend.name, fallback: undefined },
    backend,
    sites: [...NATIVE_SITES, ...guest.sites],
    startAccessor: (site, layout) =>
      guest.sites.includes(site as GuestSite)
        ? guest.startAccessor(site as GuestSite, layout)
        : startAccessor(site as NativeSite, layout),
    close: () => guest.close(),
  };
}

function model(fallback: ChosenBackend['fallback']): Served {
  const backend = memoryBackend();
  return {
    chosen: { name: backend.name, fallback },
    backend,
    sites: NATIVE_SITES,
    startAccessor: async (site, layout) => new ModelAccessor(site, backend.kernel, layout),
    close: () => {},
  };
}

/** A source, and when whatever serves it is gone, once the pager has closed it. */
export interface ImageSource {
  readonly ref: SourceRef;
  readonly closed: Promise<void>;
}

/** The image as a source; with a latency, behind a port, as a remote one would be. */
export async function imageSource({ image, latency_ms }: RestoreJob): Promise<ImageSource> {
  const ref = file(image.path, { length: image.length });
  if (latency_ms === 0) return { ref, closed: Promise.resolve() };
  const source = await openSource(ref);
  const { port1, port2 } = new MessageChannel();
  servePort(port1, {
    synchronous: false,
    length: source.length,
    async read(offset, into) {
      await setTimeout(latency_ms);
      return source.read(offset, into);
    },
  });
  const closed = new Promise<void>((resolve) => port1.once('close', resolve)).then(() => source.close?.());
  return { ref: { port: port2, length: source.length, servedHere: true }, closed };
}

/** A site that cannot be exercised here is said and gone without; any other failure is one. */
export const isUnavailable = (error: unknown): error is DemandPagingError =>
  error instanceof DemandPagingError && error.code === 'NO_PERMISSION';
