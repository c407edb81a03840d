import { DemandPagingError } from '../api/index.js';

/** Where kernels differ in what they touch or keep. Each key says what the alternative is. */
export interface KernelQuirks {
  /** INVALL, GICR_INVALLR and enabling LPIs read the bytes of all LPIs, or only of that vCPU's. */
  readonly walksAllLpis: boolean;
  /** LPIs are walked by ascending INTID (an xarray), or in the order they were created (a list). */
  readonly lpiOrder: 'intid' | 'creation';
  /** RDbase, in commands and in saved collections, is a vcpu_id, or the index of a vCPU. */
  readonly rdbase: 'vcpu_id' | 'index';
  /** MAPC with V=0 does nothing where its RDbase names no vCPU, or unmaps whatever that field holds. */
  readonly unmapChecksRdbase: boolean;
  /** MOVALL moves the LPIs of the vCPU that it names, or every LPI there is. */
  readonly movallFilters: boolean;
  /** A different but valid GITS_BASER0 (GITS_BASER1) frees the devices (the collections), or keeps them. */
  readonly changedTableFrees: boolean;
  /** A device whose table entry cannot be reached is left out of a save, or fails it with EINVAL. */
  readonly saveSkipsUnreachableDevices: boolean;
  /**
   * A save writes zeros for an entry whose collection is gone, or the kernel dereferences a null pointer.
   * There is no outcome to be right about then: the operation throws NOT_SUPPORTED.
   */
  readonly savesWithoutCollection: boolean;
  /** `next` of a saved ITE counts to the next one with a collection, or just to the next one. */
  readonly nextSkipsUnsavable: boolean;
  /**
   * Several translation table entries may map one LPI, and an LPI that exists keeps the target that it has.
   * Or it has one entry at most: a second is refused (MAPTI is EEXIST, a restore drops it without a word),
   * and one that an ap_list has kept alive without an entry takes the target of the entry that maps it next.
   */
  readonly sharesLpis: boolean;
  /** Disabling a vCPU's LPIs makes those on its ap_list not pending, or leaves them pending. */
  readonly disablingClearsPending: boolean;
  /**
   * Translations are cached by each ITS, without bound; or by the VM, 16 a vCPU, the least recently used one
   * making room, found only at the address of GITS_TRANSLATER, and emptied whenever any ITS of the VM empties
   * its own.
   */
  readonly translationCache: 'its' | 'vm';
  /** An attribute that KVM_DEV_ARM_VGIC_GRP_CTRL does not know: ENXIO (6), or success (0). */
  readonly unknownItsControl: 0 | 6;
  /** Setting GICD_TYPER2 to what it does not read: EBUSY (16), or EINVAL (22). */
  readonly changedTyper2: 16 | 22;
}

const LINUX_7_3 = {
  walksAllLpis: true,
  lpiOrder: 'intid',
  rdbase: 'vcpu_id',
  unmapChecksRdbase: false,
  movallFilters: true,
  changedTableFrees: true,
  saveSkipsUnreachableDevices: true,
  savesWithoutCollection: true,
  nextSkipsUnsavable: true,
  sharesLpis: false,
  disablingClearsPending: true,
  translationCache: 'its',
  unknownItsControl: 6,
  changedTyper2: 16,
} as const satisfies KernelQuirks;

const LINUX_7_2 = { ...LINUX_7_3, nextSkipsUnsavable: false, sharesLpis: true } as const;

const LINUX_6_12 = { ...LINUX_7_2, unknownItsControl: 0, changedTyper2: 22 } as const;

const LINUX_6_1 = {
  ...LINUX_6_12,
  walksAllLpis: false,
  lpiOrder: 'creation',
  rdbase: 'index',
  unmapChecksRdbase: true,
  changedTableFrees: false,
  saveSkipsUnreachableDevices: false,
  translationCache: 'vm',
} as const;

/**
 * Kernels by series, each as its last release that was looked at has it: 7.3.4, 6.12.117 and 6.1.192 were
 * compared with the twin running, 7.2.13 is from its source. 7.3 is the reference. Fixes reach a series in
 * the middle of its life, so an earlier release of it may be another kernel: {@link kernelQuirks} knows.
 */
export const KERNELS = {
  '7.3': LINUX_7_3,
  '7.2': LINUX_7_2,
  '6.12': LINUX_6_12,
  '6.1': LINUX_6_1,
} as const satisfies Record<string, KernelQuirks>;

export type KernelName = keyof typeof KERNELS;

/** Releases whose sources were read: first and last patch level, and what they are. */
interface ReadReleases {
  readonly from: number;
  readonly to: number;
  readonly quirks: KernelQuirks;
}

const NO_ENTRY_WITHOUT_COLLECTION = { savesWithoutCollection: false, disablingClearsPending: false } as const;
const MOVES_ALL = {
  movallFilters: false,
  changedTableFrees: false,
  saveSkipsUnreachableDevices: false,
} as const;

/** By series, ascending. What follows the last release that was read counts as that one. */
const RELEASES: Readonly<Record<KernelName, readonly ReadReleases[]>> = {
  '7.3': [{ from: 4, to: Infinity, quirks: LINUX_7_3 }],
  '7.2': [
    { from: 6, to: 6, quirks: { ...LINUX_7_2, ...MOVES_ALL } },
    { from: 9, to: 9, quirks: { ...LINUX_7_2, movallFilters: false } },
    { from: 12, to: Infinity, quirks: LINUX_7_2 },
  ],
  '6.12': [
    { from: 95, to: 111, quirks: { ...LINUX_6_12, ...MOVES_ALL, ...NO_ENTRY_WITHOUT_COLLECTION } },
    { from: 113, to: 113, quirks: { ...LINUX_6_12, disablingClearsPending: false } },
    { from: 115, to: Infinity, quirks: LINUX_6_12 },
  ],
  '6.1': [
    { from: 176, to: 190, quirks: { ...LINUX_6_1, ...NO_ENTRY_WITHOUT_COLLECTION } },
    { from: 192, to: Infinity, quirks: LINUX_6_1 },
  ],
};

/** Debian numbers its 6.1 kernels by upload (6.1.0-50): the first upload of each patch level that matters. */
const DEBIAN_6_1: readonly (readonly [upload: number, patch: number])[] = [
  [55, 192],
  [50, 176],
];

/**
 * The quirks of the kernel that calls itself `release` (`uname -r`, `os.release()`):
 * `7.3.4+deb13-cloud-arm64`, `6.12.117`, `6.1.0-55-arm64`.
 *
 * Known are releases whose source was read: 7.3 from .4; 7.2.6, .9 and from .12; 6.12 from .95 to .111, .113
 * and from .115; 6.1 from .176 to .190 and from .192 (Debian's 6.1.0-50 and later). A release after the last
 * of its series counts as that one. Vendors patch kernels: the release says what they started from.
 *
 * Errors: NOT_SUPPORTED for any other release. A plan from the wrong quirks would look right and not be: name
 * the kernel's own, `{ ...KERNELS['6.12'], movallFilters: false }`, where you know them.
 */
export function kernelQuirks(release: string): KernelQuirks {
  const [, major, minor, patch] = /^(\d+)\.(\d+)\.(\d+)/.exec(release) ?? [];
  const series = `${major}.${minor}`;
  if (!isKernelName(series)) throw unknownRelease(release, `known are ${Object.keys(KERNELS).join(', ')}`);
  const level = series === '6.1' && patch === '0' ? debianPatchLevel(release) : Number(patch);
  const found = RELEASES[series].find(({ from, to }) => level >= from && level <= to);
  if (found !== undefined) return found.quirks;
  const known = RELEASES[series].map(({ from, to }) =>
    to === Infinity ? `${from} and later` : `${from} to ${to}`,
  );
  throw unknownRelease(release, `known of ${series} are ${known.join(', ')}`);
}

const isKernelName = (series: string): series is KernelName => Object.hasOwn(KERNELS, series);

function debianPatchLevel(release: string): number {
  const upload = Number(/^6\.1\.0-(\d+)/.exec(release)?.[1] ?? 0);
  return DEBIAN_6_1.find(([first]) => upload >= first)?.[1] ?? 0;
}

const unknownRelease = (release: string, known: string): DemandPagingError =>
  new DemandPagingError('NOT_SUPPORTED', `how the GIC of Linux ${release} behaves is not known: ${known}`, {
    hint: 'Pass the quirks of that kernel instead of its release, if you know them (KernelQuirks, KERNELS)',
  });
