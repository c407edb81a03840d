import { type Program } from '../api/index.js';
import { isMapped, UNMAPPED_TARGET } from './collection.js';
import type {
  EventCommand,
  EventToCollection,
  ItsCommand,
  MapCollection,
  MapDevice,
  MapInterrupt,
  MoveAll,
  UnknownCommand,
} from './commands.js';
import { Device } from './device.js';
import type { Status } from './errno.js';
import type { Its } from './its.js';
import { FIRST_LPI, LPI_PENDING } from './lpi-store.js';
import { invalidateAll, mapLpi, updateConfiguration } from './lpi-programs.js';
import { triggerMsi } from './msi.js';
import type { Run } from './run.js';
import { entryAddress, UNREACHABLE } from './table-address.js';
import { ENTRY_BYTES, ID_BITS } from './table-entries.js';

/**
 * Executes one command. Returns minus an errno only if guest memory failed; what the architecture
 * calls a command error changes nothing and is not reported, because KVM does not report it either.
 */
export function executeCommand(run: Run, its: Its, command: ItsCommand | UnknownCommand): Program<Status> {
  switch (command.kind) {
    case 'MAPD':
      return mapDevice(run, its, command);
    case 'MAPC':
      return mapCollection(run, its, command);
    case 'MAPTI':
      return mapInterrupt(run, its, command);
    case 'MAPI':
      return mapInterrupt(run, its, { ...command, kind: 'MAPTI', intid: command.event });
    case 'DISCARD':
      return discard(run, its, command);
    case 'INV':
      return invalidate(run, its, command);
    case 'INVALL':
      return invalidateCollection(run, its, command.collection);
    case 'MOVI':
      return nothing(() => moveInterrupt(run, its, command));
    case 'MOVALL':
      return moveAll(run, its, command);
    case 'INT':
      return nothing(() => void triggerMsi(run.vgic, its, command.device, command.event));
    case 'CLEAR':
      return nothing(() => clear(run, its, command));
    case 'SYNC':
    case 'unknown':
      return nothing(() => undefined);
    default:
      return command satisfies never;
  }
}

/** A command that touches no guest memory. */

function* nothing(act: () => void): Program<Status> {
  act();
  return 0;
}

/** The row of an event's entry, or undefined. */
function entryOf(its: Its, id: number, event: number): { device: Device; row: number } | undefined {
  const device = its.device(id);
  const row = device?.find(event) ?? -1;
  return device === undefined || row < 0 ? undefined : { device, row };
}

function* mapDevice(run: Run, its: Its, command: MapDevice): Program<Status> {
  const address = yield* entryAddress(run, its.deviceTable, command.device);
  if (address === UNREACHABLE) return 0;
  if (command.valid && command.eventBits > ID_BITS) return 0;
  const { lpis, mode } = run.vgic;
  const drop = (): void => {
    const old = its.device(command.device);
    if (old !== undefined) its.freeDevice(old, lpis);
  };
  if (command.valid) {
    drop();
    its.addDevice(new Device(command.device, Number(command.itt), command.eventBits));
    return 0;
  }
  // The kernel drops the device and only then finds that its entry cannot be cleared.
  if (mode === 'kvm') drop();
  const status = yield* run.windows.writeWord(address, 0, 0);
  if (mode !== 'kvm' && status === 0) drop();
  return status;
}

function* mapCollection(run: Run, its: Its, command: MapCollection): Program<Status> {
  const { vgic } = run;
  const vcpu = vgic.vcpuIndex(command.target);
  if (vcpu < 0 && (command.valid || vgic.quirks.unmapChecksRdbase)) return 0;
  if (!command.valid) {
    its.collections.free(command.collection);
    its.cache.empty(vgic.lpis);
    return 0;
  }
  const existing = its.collections.find(command.collection);
  if (existing === undefined) {
    const address = yield* entryAddress(run, its.collectionTable, command.collection);
    if (address !== UNREACHABLE) its.collections.add(command.collection, command.target);
    return 0;
  }
  existing.target = command.target;
  for (const device of its.devices) {
    if (run.work.step()) yield* run.work.pause();
    for (let row = 0; row < device.count; row++) {
      if (run.work.step()) yield* run.work.pause();
      if (device.collection(row) === existing.handle) vgic.lpis.target[device.lpi(row)] = vcpu;
    }
  }
  return 0;
}

function* mapInterrupt(run: Run, its: Its, command: MapInterrupt): Program<Status> {
  const { vgic } = run;
  const { event, intid } = command;
  const device = its.device(command.device);
  if (device === undefined || event >= 2 ** device.eventBits) return 0;
  if (!(yield* run.windows.visible(device.itt + event * ENTRY_BYTES))) return 0;
  if (intid < FIRST_LPI || intid >= vgic.lpiLimit) return 0;
  if (device.find(event) >= 0) return 0;
  let collection = its.collections.find(command.collection);
  const created = collection === undefined;
  if (collection === undefined) {
    const address = yield* entryAddress(run, its.collectionTable, command.collection);
    if (address === UNREACHABLE) return 0;
    collection = its.collections.add(command.collection, UNMAPPED_TARGET);
  }
  const slot = yield* mapLpi(run, intid, isMapped(collection) ? vgic.vcpuIndex(collection.target) : -1);
  if (slot >= 0) {
    device.add(event, slot, collection.handle);
    return 0;
  }
  if (created) its.collections.free(command.collection);
  return run.windows.failure === undefined ? 0 : slot;
}

function* discard(run: Run, its: Its, { device: id, event }: EventCommand): Program<Status> {
  const entry = entryOf(its, id, event);
  if (entry === undefined || !isMapped(its.collectionOf(entry.device, entry.row))) return 0;
  const { device, row } = entry;
  const { lpis, mode } = run.vgic;
  const drop = (): void => {
    its.cache.empty(lpis);
    const slot = device.lpi(row);
    device.remove(row);
    lpis.unmap(slot);
  };
  // As with MAPD, the kernel drops the entry first and leaves a stale one in memory if the write fails.
  if (mode === 'kvm') drop();
  const status = yield* run.windows.writeWord(device.itt + event * ENTRY_BYTES, 0, 0);
  if (mode !== 'kvm' && status === 0) drop();
  return status;
}

function* invalidate(run: Run, its: Its, { device: id, event }: EventCommand): Program<Status> {
  const entry = entryOf(its, id, event);
  return entry === undefined ? 0 : yield* updateConfiguration(run, entry.device.lpi(entry.row));
}

function* invalidateCollection(run: Run, its: Its, id: number): Program<Status> {
  const collection = its.collections.find(id);
  if (!isMapped(collection)) return 0;
  return yield* invalidateAll(run, run.vgic.vcpuIndex(collection.target));
}

function moveInterrupt({ vgic }: Run, its: Its, command: EventToCollection): void {
  const entry = entryOf(its, command.device, command.event);
  if (entry === undefined || !isMapped(its.collectionOf(entry.device, entry.row))) return;
  const collection = its.collections.find(command.collection);
  if (!isMapped(collection)) return;
  entry.device.setCollection(entry.row, collection.handle);
  its.cache.empty(vgic.lpis);
  vgic.lpis.target[entry.device.lpi(entry.row)] = vgic.vcpuIndex(collection.target);
}

function* moveAll({ vgic, work }: Run, its: Its, command: MoveAll): Program<Status> {
  const from = vgic.vcpuIndex(command.from);
  const to = vgic.vcpuIndex(command.to);
  if (from < 0 || to < 0 || from === to) return 0;
  const { lpis, quirks } = vgic;
  for (const slot of lpis.ordered(quirks.lpiOrder)) {
    if (work.step()) yield* work.pause();
    if (lpis.target[slot] === from || !quirks.movallFilters) lpis.target[slot] = to;
  }
  its.cache.empty(lpis);
  return 0;
}

function clear({ vgic }: Run, its: Its, { device: id, event }: EventCommand): void {
  const entry = entryOf(its, id, event);
  if (entry !== undefined) vgic.lpis.flags[entry.device.lpi(entry.row)]! &= ~LPI_PENDING;
}
