/** Where kernels differ in what they touch or keep. Each key says what the alternative is. */
export interface KernelQuirks {
  /** INVALL, GICR_INVALLR and enabling LPIs read the bytes of all LPIs, or only of that vCPU's. */
  readonly walksAllLpis: boolean;
  /** LPIs are walked by ascending INTID (an xarray), or in the order they were created (a list). */
  readonly lpiOrder: 'intid' | 'creation';
  /** A device whose table entry cannot be reached is left out of a save, or fails it with EINVAL. */
  readonly saveSkipsUnreachableDevices: boolean;
  /** Writing a different but valid GITS_BASER1 frees the collections, or keeps them. */
  readonly changedCollectionTableFrees: boolean;
  /**
   * Several translation table entries may map one LPI, which keeps the target that it has; or the second entry is
   * refused: MAPTI is EEXIST, and a restore drops it without a word.
   */
  readonly sharesLpis: boolean;
  /** An attribute that KVM_DEV_ARM_VGIC_GRP_CTRL does not know: ENXIO (6), or success (0). */
  readonly unknownItsControl: 0 | 6;
}

/**
 * Measured kernels. 7.3 is the reference; of 6.12 the last two keys were seen to differ, in random scripts on
 * 6.12.117; of 6.1 the differences seen in identical programs run on 6.1.192, plus the order of its LPI list, and
 * what a kernel that is newer still does. A kernel in between is neither: name its
 * quirks yourself.
 */
export const KERNELS = {
  '7.3': {
    walksAllLpis: true,
    lpiOrder: 'intid',
    saveSkipsUnreachableDevices: true,
    changedCollectionTableFrees: true,
    sharesLpis: false,
    unknownItsControl: 6,
  },
  '6.12': {
    walksAllLpis: true,
    lpiOrder: 'intid',
    saveSkipsUnreachableDevices: true,
    changedCollectionTableFrees: true,
    sharesLpis: true,
    unknownItsControl: 0,
  },
  '6.1': {
    walksAllLpis: false,
    lpiOrder: 'creation',
    saveSkipsUnreachableDevices: false,
    changedCollectionTableFrees: false,
    sharesLpis: true,
    unknownItsControl: 0,
  },
} as const satisfies Record<string, KernelQuirks>;

export type KernelName = keyof typeof KERNELS;
