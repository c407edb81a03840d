import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { arch, availableParallelism, release, totalmem, type as systemName } from 'node:os';
import { DemandPagingError, hex } from '../api/index.js';
import {
  type GuestMemfdSupport,
  guestMemfdSupport,
  hugePagePool,
  pageSize,
  userfaultfdSupport,
} from '../linux/index.js';

/** What a device node lets this process do. */
export type DeviceState = 'usable' | 'not permitted' | 'not there';

/** What matters for demand paging on a host. */
export interface HostFacts {
  readonly kernel: string;
  readonly architecture: string;
  /** Undefined where native calls are unavailable. */
  readonly page_bytes: number | undefined;
  readonly cpus: number;
  readonly memory_bytes: number;
  readonly node: string;
  readonly devices: Readonly<Record<'/dev/userfaultfd' | '/dev/kvm', DeviceState>>;
  /** Undefined for one that this kernel does not have or does not show. */
  readonly sysctls: Readonly<Record<string, string | undefined>>;
  readonly hugePages:
    { readonly total: number; readonly free: number; readonly page_bytes: number } | undefined;
  /** Whether this process has CAP_SYS_PTRACE; undefined where that cannot be known. */
  readonly mayPtrace: boolean | undefined;
  readonly userfaultfd:
    | { readonly features: readonly string[]; readonly mask: string; readonly ioctls: readonly string[] }
    | Lacking;
  readonly guestMemfd: GuestMemfdSupport | Lacking;
}

interface Lacking {
  readonly error: string;
  readonly hint: string | undefined;
}

const SYSCTLS = [
  'vm.unprivileged_userfaultfd',
  'vm.nr_hugepages',
  'vm.max_map_count',
  'kernel.yama.ptrace_scope',
];

/** Looks around. Never throws; opens a userfaultfd, makes a VM, and drops both again. */
export function hostFacts(): HostFacts {
  return {
    kernel: `${systemName()} ${release()}`,
    architecture: arch(),
    page_bytes: attempt(pageSize),
    cpus: availableParallelism(),
    memory_bytes: totalmem(),
    node: process.version,
    devices: { '/dev/userfaultfd': device('/dev/userfaultfd'), '/dev/kvm': device('/dev/kvm') },
    sysctls: Object.fromEntries(SYSCTLS.map((name) => [name, sysctl(name)])),
    hugePages: hugePages(),
    mayPtrace: mayPtrace(),
    userfaultfd: userfaultfdFacts(),
    guestMemfd: orLacking(guestMemfdSupport),
  };
}

const userfaultfdFacts = (): HostFacts['userfaultfd'] =>
  orLacking(() => {
    const { features, mask, ioctls } = userfaultfdSupport();
    return { features, mask: hex(mask), ioctls };
  });

function orLacking<T>(look: () => T): T | Lacking {
  try {
    return look();
  } catch (error) {
    if (error instanceof DemandPagingError) return { error: error.message, hint: error.hint };
    return { error: String(error), hint: undefined };
  }
}

function attempt<T>(body: () => T): T | undefined {
  try {
    return body();
  } catch {
    return undefined;
  }
}

function device(path: string): DeviceState {
  if (!existsSync(path)) return 'not there';
  return attempt(() => (accessSync(path, constants.R_OK | constants.W_OK), true))
    ? 'usable'
    : 'not permitted';
}

const sysctl = (name: string): string | undefined =>
  attempt(() => readFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, 'utf8').trim());

function hugePages(): HostFacts['hugePages'] {
  const pool = attempt(hugePagePool);
  return pool && { total: pool.total, free: pool.free, page_bytes: pool.pageSize };
}

const CAP_SYS_PTRACE = 19n;

function mayPtrace(): boolean | undefined {
  const status = attempt(() => readFileSync('/proc/self/status', 'utf8'));
  const effective = status && /^CapEff:\s+([0-9a-f]+)$/m.exec(status)?.[1];
  return effective === undefined ? undefined : ((BigInt(`0x${effective}`) >> CAP_SYS_PTRACE) & 1n) === 1n;
}
