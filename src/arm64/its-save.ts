import { DemandPagingError, type Program } from '../api/index.js';
import type { Device } from './device.js';
import { EINVAL, type Status } from './errno.js';
import type { Its } from './its.js';
import type { Run } from './run.js';
import { entryAddress, UNREACHABLE } from './table-address.js';
import {
  collectionHalves,
  deviceHalves,
  DTE_NEXT_MAX,
  ENTRY_BYTES,
  interruptHalves,
  ITE_NEXT_MAX,
} from './table-entries.js';
import type { Address } from './windows.js';

/** Writes each device's translation table and then its device table entry, in order of DeviceID. */
export function* saveDevices(run: Run, its: Its): Program<Status> {
  if (!its.deviceTable.valid) return 0;
  its.sortDevices();
  const skips = run.vgic.quirks.saveSkipsUnreachableDevices;
  let at = 0;
  let address = yield* nextReachable(run, its, at);
  for (; at < its.devices.length;) {
    if (address.status !== 0) return address.status;
    if (address.index !== at && !skips) return -EINVAL;
    at = address.index;
    const device = its.devices[at];
    if (device === undefined) break;
    // What follows is looked up before anything is written: `next` counts to a device that is saved.
    const following = skips ? yield* nextReachable(run, its, at + 1) : undefined;
    if (following !== undefined && following.status !== 0) return following.status;
    const next = its.devices[following?.index ?? at + 1];
    const distance = next === undefined ? 0 : Math.min(next.id - device.id, DTE_NEXT_MAX);
    const status = yield* saveDevice(run, its, device, address.address, distance);
    if (status !== 0) return status;
    at++;
    address = following ?? (yield* nextReachable(run, its, at));
  }
  return 0;
}

interface Reachable {
  readonly status: Status;
  readonly index: number;
  readonly address: Address;
}

/**
 * The first device from `index` on whose entry can be stored. In transactional mode a level-1 entry
 * that cannot be read is a failure: skipping the device, as the kernel does, would lose it.
 */
function* nextReachable(run: Run, its: Its, from: number): Program<Reachable> {
  for (let index = from; index < its.devices.length; index++) {
    if (run.work.step()) yield* run.work.pause();
    run.windows.clearFailure();
    const address = yield* entryAddress(run, its.deviceTable, its.devices[index]!.id);
    if (address !== UNREACHABLE) return { status: 0, index, address };
    const { failure } = run.windows;
    if (failure === undefined || run.vgic.mode === 'kvm') continue;
    if (yield* run.windows.visible(failure.address)) return { status: -failure.errno, index, address };
  }
  return { status: 0, index: its.devices.length, address: UNREACHABLE };
}

function* saveDevice(run: Run, its: Its, device: Device, at: Address, next: number): Program<Status> {
  const status = yield* saveEntries(run, its, device);
  if (status !== 0) return status;
  const [low, high] = deviceHalves(device.eventBits, device.itt, next);
  return yield* run.windows.writeWord(at, low, high);
}

/**
 * Entries without a collection cannot be expressed: they are written as 0. `next` skips them, or leads to one
 * that a restore then steps over.
 */
function* saveEntries(run: Run, its: Its, device: Device): Program<Status> {
  device.sort();
  const { lpis, quirks } = run.vgic;
  let savable = nextSavable(its, device, 0);
  for (let row = 0; row < device.count; row++) {
    if (run.work.step()) yield* run.work.pause();
    const event = device.event(row);
    let [low, high] = [0, 0];
    if (row === savable) {
      savable = nextSavable(its, device, row + 1);
      const following = quirks.nextSkipsUnsavable ? savable : row + 1;
      const distance = following < device.count ? device.event(following) - event : 0;
      const { id } = its.collectionOf(device, row)!;
      [low, high] = interruptHalves(id, lpis.intid[device.lpi(row)]!, Math.min(distance, ITE_NEXT_MAX));
    } else if (!quirks.savesWithoutCollection) throw crash(device, event);
    const status = yield* run.windows.writeWord(device.itt + event * ENTRY_BYTES, low, high);
    if (status !== 0) return status;
  }
  return 0;
}

const crash = ({ id }: Device, event: number): DemandPagingError =>
  new DemandPagingError(
    'NOT_SUPPORTED',
    `this kernel cannot save event ${event} of device ${id}: it has no collection`,
    {
      hint: 'KVM dereferences a null pointer here: have the guest map the collection again, or update the kernel',
    },
  );

function nextSavable(its: Its, device: Device, from: number): number {
  let row = from;
  while (row < device.count && its.collectionOf(device, row) === undefined) row++;
  return row;
}

/** Writes the collections as a list, and an entry that ends it unless the table is full. */
export function* saveCollections(run: Run, its: Its): Program<Status> {
  const { valid, start, bytes } = its.collectionTable;
  if (!valid) return 0;
  let address = start;
  for (const collection of its.collections) {
    if (run.work.step()) yield* run.work.pause();
    const [low, high] = collectionHalves(collection.id, collection.target);
    const status = yield* run.windows.writeWord(address, low, high);
    if (status !== 0) return status;
    address += ENTRY_BYTES;
  }
  if (address === start + bytes) return 0;
  return yield* run.windows.writeWord(address, 0, 0);
}
