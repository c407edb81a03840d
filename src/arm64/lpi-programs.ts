import { type Program } from '../api/index.js';
import { EEXIST, type Status } from './errno.js';
import { LPI_ENABLED, LPI_PENDING, type LpiSlot } from './lpi-store.js';
import { configurationAddress, pendingAddress, pendingMask } from './lpi-tables.js';
import { queueLpi } from './redistributor.js';
import { readLpiTable, type Run } from './run.js';
import { type Window } from './windows.js';
import { WorkLimitError } from './work.js';

/** {@link mapLpiFromKnown} cannot say: memory has to be asked first. */
export const NEEDS_MEMORY = -1000;

function configure({ vgic }: Run, slot: LpiSlot, byte: number): void {
  const { lpis } = vgic;
  lpis.priority[slot] = byte & 0xfc;
  lpis.flags[slot] = (lpis.flags[slot]! & ~LPI_ENABLED) | (byte & 1 ? LPI_ENABLED : 0);
  queueLpi(lpis, slot, vgic.forwarding);
}

/** Sets the latch from a byte of the pending table. True if the bit is set, and to be cleared in memory. */
function latchPending({ vgic }: Run, slot: LpiSlot, byte: number): boolean {
  const { lpis } = vgic;
  const pending = (byte & pendingMask(lpis.intid[slot]!)) !== 0;
  lpis.flags[slot] = (lpis.flags[slot]! & ~LPI_PENDING) | (pending ? LPI_PENDING : 0);
  queueLpi(lpis, slot, vgic.forwarding);
  return pending;
}

/**
 * Re-reads an LPI's configuration byte. With `onlyVcpu` the byte is read all the same, and ignored
 * for an LPI that targets another vCPU.
 */
export function* updateConfiguration(run: Run, slot: LpiSlot, onlyVcpu = -1): Program<Status> {
  const { lpis, configurationTable } = run.vgic;
  const address = configurationAddress(configurationTable, lpis.intid[slot]!);
  const window = run.windows.known(address) ?? (yield* readLpiTable(run, address, 'lpi-configuration'));
  if (typeof window === 'number') return window;
  if (onlyVcpu >= 0 && lpis.target[slot] !== onlyVcpu) return 0;
  configure(run, slot, window.bytes[address - window.start]!);
  return 0;
}

/**
 * Creates an LPI if both its bytes are at hand, and its pending bit, if set, can be cleared: the path of
 * nearly every entry of a restore, with no generator in it. Returns its slot, or {@link NEEDS_MEMORY}.
 */
function createLpiFromKnown(run: Run, intid: number, target: number): LpiSlot {
  const { vgic, windows } = run;
  const configurationAt = configurationAddress(vgic.configurationTable, intid);
  const configuration = windows.known(configurationAt);
  if (configuration === undefined) return NEEDS_MEMORY;
  let pending: Window | undefined;
  let pendingAt = 0;
  let byte = 0;
  if (target >= 0) {
    pendingAt = pendingAddress(vgic.redistributors[target]!.pendingTable, intid);
    pending = windows.known(pendingAt);
    if (pending === undefined) return NEEDS_MEMORY;
    pendingAt -= pending.start;
    byte = pending.bytes[pendingAt]!;
    if ((byte & pendingMask(intid)) !== 0 && !windows.isWritable(pending)) return NEEDS_MEMORY;
  }
  const slot = vgic.lpis.add(intid, target);
  vgic.lpis.hold(slot);
  configure(run, slot, configuration.bytes[configurationAt - configuration.start]!);
  if (pending !== undefined && latchPending(run, slot, byte))
    windows.setByte(pending, pendingAt, byte & ~pendingMask(intid));
  return slot;
}

function* createLpi(run: Run, intid: number, target: number): Program<LpiSlot | number> {
  const { lpis } = run.vgic;
  const slot = lpis.add(intid, target);
  lpis.hold(slot);
  let status = yield* updateConfiguration(run, slot);
  if (status === 0 && target >= 0) status = yield* consumePending(run, slot);
  if (status === 0) return slot;
  lpis.release(slot); // an ap_list may hold it still
  return status;
}

/** Copies the pending bit into the latch and clears it in memory. The latch stays where that write fails. */
function* consumePending(run: Run, slot: LpiSlot): Program<Status> {
  const { lpis, redistributors } = run.vgic;
  const intid = lpis.intid[slot]!;
  const address = pendingAddress(redistributors[lpis.target[slot]!]!.pendingTable, intid);
  const window = yield* readLpiTable(run, address, 'lpi-pending');
  if (typeof window === 'number') return window;
  const offset = address - window.start;
  const byte = window.bytes[offset]!;
  if (!latchPending(run, slot, byte)) return 0;
  return yield* run.windows.writeByte(window, offset, byte & ~pendingMask(intid));
}

/**
 * The LPI for a new translation table entry, held by it: a new one whose configuration and pending bit are
 * read, or one that exists, of which nothing is read. That one an ap_list or a cache kept alive without an
 * entry: it takes the target of this one, unless LPIs are shared; then another entry may map it as well, and
 * its target stays. EEXIST if another entry maps it and they are not. {@link NEEDS_MEMORY} if {@link mapLpi}
 * has to be asked instead.
 */
export function mapLpiFromKnown(run: Run, intid: number, target: number): LpiSlot {
  const { lpis, quirks } = run.vgic;
  const { maxEntries } = run.work;
  if (lpis.count >= maxEntries || lpis.entries >= maxEntries)
    throw new WorkLimitError('maxEntries', maxEntries);
  let slot: LpiSlot = lpis.find(intid);
  if (slot >= 0) {
    if (!quirks.sharesLpis) {
      if (lpis.mapped[slot] !== 0) return -EEXIST;
      lpis.target[slot] = target;
    }
    lpis.hold(slot);
  } else {
    slot = createLpiFromKnown(run, intid, target);
    if (slot < 0) return slot;
  }
  lpis.map(slot);
  return slot;
}

/** {@link mapLpiFromKnown}, asking memory for what it needs. Returns minus an errno if an access fails. */
export function* mapLpi(run: Run, intid: number, target: number): Program<LpiSlot | number> {
  const known = mapLpiFromKnown(run, intid, target);
  if (known !== NEEDS_MEMORY) return known;
  const slot = yield* createLpi(run, intid, target);
  if (slot >= 0) run.vgic.lpis.map(slot);
  return slot;
}

/** Re-reads the configuration of a vCPU's LPIs. Goes on after a failed read; returns the first failure. */
export function* invalidateAll(run: Run, vcpu: number): Program<Status> {
  const { lpis, quirks } = run.vgic;
  let first: Status = 0;
  for (const slot of lpis.ordered(quirks.lpiOrder)) {
    if (run.work.step()) yield* run.work.pause();
    if (!quirks.walksAllLpis && lpis.target[slot] !== vcpu) continue;
    const status = yield* updateConfiguration(run, slot, vcpu);
    if (first === 0) first = status;
  }
  return first;
}

/**
 * Takes over a vCPU's pending bits when its LPIs are enabled. Nothing is cleared in memory. Stops at
 * the first byte that cannot be read; the kernel keeps what it has taken over by then, a
 * transactional run takes over nothing.
 */
export function* syncPendingTable(run: Run, vcpu: number): Program<Status> {
  const { lpis, quirks, redistributors, mode } = run.vgic;
  const table = redistributors[vcpu]!.pendingTable;
  const slots = lpis.ordered(quirks.lpiOrder);
  const taken = new Uint8Array(slots.length);
  const take = (end: number): void => {
    for (let at = 0; at < end; at++) applySynced(run, slots[at]!, vcpu, taken[at]!);
  };
  for (let at = 0; at < slots.length; at++) {
    if (run.work.step()) yield* run.work.pause();
    const slot = slots[at]!;
    const mine = lpis.target[slot] === vcpu;
    if (!mine && !quirks.walksAllLpis) continue;
    const intid = lpis.intid[slot]!;
    const address = pendingAddress(table, intid);
    const window = run.windows.known(address) ?? (yield* readLpiTable(run, address, 'lpi-pending'));
    if (typeof window === 'number') {
      if (mode === 'kvm') take(at);
      return window;
    }
    taken[at] = window.bytes[address - window.start]! & pendingMask(intid) ? 1 : 0;
  }
  take(slots.length);
  return 0;
}

function applySynced({ vgic }: Run, slot: LpiSlot, vcpu: number, pending: number): void {
  const { lpis, quirks } = vgic;
  if (lpis.target[slot] === vcpu) {
    lpis.flags[slot] = (lpis.flags[slot]! & ~LPI_PENDING) | (pending ? LPI_PENDING : 0);
  } else if (!quirks.walksAllLpis) return;
  queueLpi(lpis, slot, vgic.forwarding);
}

/** Writes every LPI's latch into its target's pending table, byte by byte, only where it differs. */
export function* savePendingTables(run: Run): Program<Status> {
  const { lpis, quirks, redistributors } = run.vgic;
  for (const slot of lpis.ordered(quirks.lpiOrder)) {
    if (run.work.step()) yield* run.work.pause();
    const target = lpis.target[slot]!;
    if (target < 0) continue;
    const intid = lpis.intid[slot]!;
    const address = pendingAddress(redistributors[target]!.pendingTable, intid);
    const window = run.windows.known(address) ?? (yield* readLpiTable(run, address, 'lpi-pending'));
    if (typeof window === 'number') return window;
    const offset = address - window.start;
    const byte = window.bytes[offset]!;
    const mask = pendingMask(intid);
    const pending = (lpis.flags[slot]! & LPI_PENDING) !== 0;
    if (((byte & mask) !== 0) === pending) continue;
    const status = yield* run.windows.writeByte(window, offset, byte ^ mask);
    if (status !== 0) return status;
  }
  return 0;
}
