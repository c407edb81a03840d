import { ExitPort, type ExitPortToken } from '../../src/kvm/exit-port.js';
import { type SlotRegion } from '../../src/kvm/slot-region.js';
import { UffdArrivals } from '../../src/linux/index.js';

/** A region of so many pages in memory of this process. */
export const regionAt = (address: number, count: number, pageSize: number): SlotRegion => ({
  page: 0,
  count,
  pageSize,
  chunk: 1,
  gpa: 0x10_0000,
  address,
  whileMissing: address,
  guestMemfd: -1,
  guestMemfdOffset: 0,
});

/** A port without a userfaultfd, and with what else is given. */
export const exitPort = (
  given: Pick<ExitPortToken, 'shared' | 'regions' | 'doorbell' | 'userfault' | 'staging_bytes' | 'verbs'>,
): ExitPort =>
  new ExitPort({
    uffd: -1,
    arrivals: UffdArrivals.share(),
    moves: false,
    hugeUnits: new Map(),
    files: new Map(),
    zeroFilled: new Set(),
    aliases: undefined,
    ...given,
  });
