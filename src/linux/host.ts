import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { availableParallelism, release, totalmem } from 'node:os';
import { transparentHugePages } from './huge-pages.js';
import { KVM_CAP, type KvmCapability } from './kvm-abi.js';
import { Kvm, KVM_DEVICE } from './kvm.js';
import { hugePageSizes } from './page-size.js';
import { USERFAULTFD_DEVICE } from './userfaultfd.js';

/** A device node as this process finds it. */
export interface DeviceState {
  readonly path: string;
  /** `absent`: no such node; `refused`: there, but not for this user; `usable`: it can be opened. */
  readonly state: 'absent' | 'refused' | 'usable';
  /** Permission bits, such as 0o600; undefined where it is absent. */
  readonly mode: number | undefined;
}

/** Capabilities of a process that matter here, by their bit. Source: capabilities(7). */
const CAPABILITY_BITS = {
  CAP_DAC_OVERRIDE: 1,
  CAP_IPC_LOCK: 14,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
} as const;

export type HostCapability = keyof typeof CAPABILITY_BITS;

/** Settings that decide what works, as sysctl(8) names them. */
const SYSCTLS = [
  'kernel.yama.ptrace_scope',
  'vm.max_map_count',
  'vm.nr_hugepages',
  'vm.overcommit_memory',
  'vm.unprivileged_userfaultfd',
] as const;

export type HostSysctl = (typeof SYSCTLS)[number];

/** One pool of huge pages. */
export interface HostHugePages {
  /** Bytes. */
  readonly pageSize: number;
  readonly total: number;
  readonly free: number;
}

export interface HostFacts {
  /** Such as `6.18.44`. */
  readonly kernelRelease: string;
  /** As Node names it: `x64`, `arm64`. */
  readonly architecture: string;
  readonly nodeVersion: string;
  /** Bytes; undefined where /proc does not say. */
  readonly pageSize: number | undefined;
  readonly cpus: number;
  /** Bytes. */
  readonly memory: number;
  readonly userfaultfd: DeviceState;
  readonly kvm: DeviceState;
  /** Values as text; undefined where the kernel has no such setting. */
  readonly sysctls: Readonly<Record<HostSysctl, string | undefined>>;
  /** Effective user id; undefined where the platform has none. */
  readonly user: number | undefined;
  readonly capabilities: Readonly<Record<HostCapability, boolean>>;
  /** 0 off, 1 strict, 2 filtered: a filter may hide system calls. */
  readonly seccomp: number | undefined;
  readonly hugePages: readonly HostHugePages[];
  /** `always`, `madvise` or `never`; undefined without transparent huge pages. */
  readonly transparentHugePages: string | undefined;
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined; // the facility is not there, or not for this user
  }
}

function deviceState(path: string): DeviceState {
  let mode: number;
  try {
    mode = statSync(path).mode & 0o7777;
  } catch {
    return { path, state: 'absent', mode: undefined };
  }
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return { path, state: 'usable', mode };
  } catch {
    return { path, state: 'refused', mode };
  }
}

/** AT_PAGESZ of the auxiliary vector: the page size without any native call. Source: getauxval(3). */
function auxiliaryPageSize(): number | undefined {
  const AT_PAGESZ = 6n;
  try {
    const vector = readFileSync('/proc/self/auxv');
    for (let at = 0; at + 16 <= vector.length; at += 16) {
      if (vector.readBigUInt64LE(at) === AT_PAGESZ) return Number(vector.readBigUInt64LE(at + 8));
    }
  } catch {
    // not Linux, or a process that may not read its own auxiliary vector
  }
  return undefined;
}

function statusField(status: string, name: string): string | undefined {
  return new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(status)?.[1];
}

function hugePools(): HostHugePages[] {
  return hugePageSizes().map((pageSize) => {
    const folder = `/sys/kernel/mm/hugepages/hugepages-${pageSize / 1024}kB`;
    const count = (name: string): number => Number(textOf(`${folder}/${name}`) ?? 0);
    return { pageSize, total: count('nr_hugepages'), free: count('free_hugepages') };
  });
}

/**
 * What this host is and allows, read from /proc, /sys and the device nodes. Never fails: what cannot
 * be read is undefined. Loads no native code. Blocks: for a few small file reads.
 */
export function hostFacts(): HostFacts {
  const status = textOf('/proc/self/status') ?? '';
  const effective = BigInt(`0x${statusField(status, 'CapEff') ?? '0'}`);
  const held = (bit: number): boolean => ((effective >> BigInt(bit)) & 1n) === 1n;
  const capabilities = Object.entries(CAPABILITY_BITS).map(([name, bit]) => [name, held(bit)]);
  const sysctls = SYSCTLS.map((name) => [name, textOf(`/proc/sys/${name.replaceAll('.', '/')}`)]);
  const seccomp = statusField(status, 'Seccomp');
  return {
    kernelRelease: release(),
    architecture: process.arch,
    nodeVersion: process.version,
    pageSize: auxiliaryPageSize(),
    cpus: availableParallelism(),
    memory: totalmem(),
    userfaultfd: deviceState(USERFAULTFD_DEVICE),
    kvm: deviceState(KVM_DEVICE),
    sysctls: Object.fromEntries(sysctls) as HostFacts['sysctls'],
    user: process.geteuid?.(),
    capabilities: Object.fromEntries(capabilities) as HostFacts['capabilities'],
    seccomp: seccomp === undefined ? undefined : Number(seccomp),
    hugePages: hugePools(),
    transparentHugePages: transparentHugePages(),
  };
}

export interface KvmFacts {
  /** What KVM_CHECK_EXTENSION answers for a fresh VM; 0 is a missing capability. */
  readonly capabilities: Readonly<Record<KvmCapability, number>>;
  /** Flags of KVM_CREATE_GUEST_MEMFD; 0 without guest_memfd. */
  readonly guestMemfdFlags: number;
}

/** What this host's KVM offers: makes a VM, asks, closes it. Errors: as {@link Kvm.open}. */
export function kvmFacts(): KvmFacts {
  using kvm = Kvm.open();
  using vm = kvm.createVm();
  const capabilities = Object.entries(KVM_CAP).map(([name, number]) => [name, vm.check(number)]);
  return {
    capabilities: Object.fromEntries(capabilities) as KvmFacts['capabilities'],
    guestMemfdFlags: vm.guestMemfdFlags,
  };
}

/**
 * Whether `release` (as {@link HostFacts.kernelRelease}) is at least `major.minor`. For messages only:
 * whether something works is a matter of probing, because distributions carry patches.
 */
export function isAtLeast(release: string, major: number, minor: number): boolean {
  const [first = 0, second = 0] = release.split(/[.-]/).map(Number);
  return first > major || (first === major && second >= minor);
}
