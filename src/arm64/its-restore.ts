import { type Program } from '../api/index.js';
import { isMapped, UNMAPPED_TARGET } from './collection.js';
import { Device } from './device.js';
import { EEXIST, EINVAL, type Status } from './errno.js';
import type { Its } from './its.js';
import { FIRST_LPI } from './lpi-store.js';
import { mapLpi, mapLpiFromKnown, NEEDS_MEMORY } from './lpi-programs.js';
import { announceBlocks, announceTranslationTables } from './restore-hints.js';
import { mayRead, type Run } from './run.js';
import { blockAddress, entryAddress, UNREACHABLE } from './table-address.js';
import { deviceEntry, ENTRY_BYTES, ID_BITS, LEVEL2_ENTRIES, TABLE_PAGE_BYTES } from './table-entries.js';
import { type Address, type Window } from './windows.js';

/** What scanning a table ends with: minus an errno, or one of these. */
const LAST_FOUND = 0;
const END_OF_TABLE = 1;

/** Reads the collection list up to its first invalid entry. */
export function* restoreCollections(run: Run, its: Its, added: number[]): Program<Status> {
  const { valid, start, bytes } = its.collectionTable;
  if (!valid) return 0;
  for (let at = 0; at < bytes; at += ENTRY_BYTES) {
    if (run.work.step()) yield* run.work.pause();
    const address = start + at;
    let window = run.windows.known(address);
    if (window === undefined) {
      // The list seldom goes on past its first page; if it does, the rest is likely wanted.
      if (at > 0) yield* mayRead('collection-table', address, bytes - at);
      const read = yield* run.windows.read(address);
      if (typeof read === 'number') return read;
      window = read;
    }
    const offset = address - window.start;
    const high = window.view.getUint32(offset + 4, true);
    if (high >>> 31 === 0) return 0;
    const low = window.view.getUint32(offset, true);
    const status = yield* restoreCollection(run, its, low, high);
    if (status !== 0) return status;
    added.push(low & 0xffff);
  }
  return 0;
}

function* restoreCollection(run: Run, its: Its, low: number, high: number): Program<Status> {
  const id = low & 0xffff;
  const target = (high & 0xffff) * 65536 + (low >>> 16);
  if (target !== UNMAPPED_TARGET && run.vgic.vcpuIndex(target) < 0) return -EINVAL;
  if (its.collections.find(id) !== undefined) return -EEXIST;
  if ((yield* entryAddress(run, its.collectionTable, id)) === UNREACHABLE) return -EINVAL;
  its.collections.add(id, target);
  return 0;
}

/** Reads the device table, and of each valid entry the whole translation table, depth first. */
export function* restoreDevices(run: Run, its: Its): Program<Status> {
  const { valid, indirect, start, bytes } = its.deviceTable;
  if (!valid) return 0;
  const end = indirect
    ? yield* scanLevel1(run, its, start, bytes)
    : yield* scanDevices(run, its, start, bytes, 0);
  return end > 0 ? 0 : end;
}

/** Level 1 is stepped entry by entry; each block is scanned from its own first entry. */
function* scanLevel1(run: Run, its: Its, start: Address, bytes: number): Program<number> {
  for (let at = 0; at < bytes; at += ENTRY_BYTES) {
    if (run.work.step()) yield* run.work.pause();
    const address = start + at;
    let window = run.windows.known(address);
    if (window === undefined) {
      const read = yield* run.windows.read(address);
      if (typeof read === 'number') return read;
      window = read;
      yield* announceBlocks(window, address - window.start);
    }
    const offset = address - window.start;
    const high = window.view.getUint32(offset + 4, true);
    if (high >>> 31 === 0) continue;
    const block = blockAddress(window.view.getUint32(offset, true), high);
    const firstId = (at / ENTRY_BYTES) * LEVEL2_ENTRIES;
    const end = yield* scanDevices(run, its, block, TABLE_PAGE_BYTES, firstId);
    if (end <= LAST_FOUND) return end;
  }
  return END_OF_TABLE;
}

function* scanDevices(run: Run, its: Its, start: Address, bytes: number, firstId: number): Program<number> {
  let at = 0;
  for (;;) {
    if (run.work.step()) yield* run.work.pause();
    const address = start + at;
    let window = run.windows.known(address);
    if (window === undefined) {
      if (at > 0) yield* mayRead('device-table', address, bytes - at);
      const read = yield* run.windows.read(address);
      if (typeof read === 'number') return read;
      window = read;
      yield* announceTranslationTables(window, address - window.start);
    }
    const offset = address - window.start;
    const high = window.view.getUint32(offset + 4, true);
    let step = 1;
    if (high >>> 31 === 1) {
      const id = firstId + at / ENTRY_BYTES;
      step = yield* restoreDevice(run, its, id, window.view.getUint32(offset, true), high);
      if (step <= 0) return step;
    }
    at += step * ENTRY_BYTES;
    if (at >= bytes) return END_OF_TABLE;
  }
}

function* restoreDevice(run: Run, its: Its, id: number, low: number, high: number): Program<number> {
  const { next, itt, eventBits } = deviceEntry(low, high);
  if (eventBits > ID_BITS) return -EINVAL;
  if ((yield* entryAddress(run, its.deviceTable, id)) === UNREACHABLE) return -EINVAL;
  const device = new Device(id, itt, eventBits);
  its.addDevice(device);
  const status = yield* scanEntries(run, its, device);
  return status < 0 ? status : next;
}

/** Reads a device's translation table, following `next` from entry to entry. */
function* scanEntries(run: Run, its: Its, device: Device): Program<number> {
  const { vgic, windows, work } = run;
  const events = 2 ** device.eventBits;
  let event = 0;
  for (;;) {
    if (work.step()) yield* work.pause();
    const address: Address = device.itt + event * ENTRY_BYTES;
    let window: Window | undefined = windows.known(address);
    if (window === undefined) {
      if (event > 0) yield* mayRead('translation-table', address, (events - event) * ENTRY_BYTES);
      const read: Window | number = yield* windows.read(address);
      if (typeof read === 'number') return read;
      window = read;
    }
    const offset = address - window.start;
    const low = window.view.getUint32(offset, true);
    const high = window.view.getUint32(offset + 4, true);
    const intid = (high & 0xffff) * 65536 + (low >>> 16);
    let step = 1;
    if (intid !== 0) {
      step = high >>> 16;
      if (intid < FIRST_LPI || event + step >= events) return -EINVAL;
      const collection = its.collections.find(low & 0xffff);
      if (collection === undefined) return -EINVAL;
      const target = isMapped(collection) ? vgic.vcpuIndex(collection.target) : -1;
      let slot = mapLpiFromKnown(run, intid, target);
      if (slot === NEEDS_MEMORY) slot = yield* mapLpi(run, intid, target);
      if (slot >= 0) device.add(event, slot, collection.handle);
      else if (slot !== -EEXIST) return slot; // an LPI that another entry maps: this one is dropped
      if (step === 0) return LAST_FOUND;
    }
    event += step;
    if (event >= events) return END_OF_TABLE;
  }
}
