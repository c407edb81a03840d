import { CollectionList, type Collection } from './collection.js';
import { type Device } from './device.js';
import type { LpiStore } from './lpi-store.js';
import { gitsBaser } from './registers.js';
import { TABLE_PAGE_BYTES } from './table-entries.js';
import type { TranslationCache } from './translation-cache.js';
import type { Address } from './windows.js';

/** An ITS table as its GITS_BASER<n> describes it. */
export interface TableExtent {
  readonly valid: boolean;
  readonly indirect: boolean;
  readonly start: Address;
  readonly bytes: number;
}

/** GITS_BASER<n> of a new ITS: inner shareable, read-allocate write-back, 64 KiB pages, 8-byte entries. */
const INITIAL_BASER0 = 0x1907_0000_0000_0600n;
const INITIAL_BASER1 = 0x1c07_0000_0000_0600n;

/**
 * One ITS: its registers, and what the commands or a restore built. It knows nothing of guest memory.
 */
export class Its {
  enabled = false;
  cbaser = 0n;
  creadr = 0;
  cwriter = 0;
  #baser0 = INITIAL_BASER0;
  #baser1 = INITIAL_BASER1;
  deviceTable: TableExtent = extent(INITIAL_BASER0);
  collectionTable: TableExtent = extent(INITIAL_BASER1);

  collections = new CollectionList();
  /** In the kernel's list order: order of mapping, sorted by id at each save. May hold an id twice. */
  #devices = new Set<Device>();
  /** The same as a list, until one comes or goes. */
  #list: readonly Device[] | undefined;
  /** The first in that order with each id. */
  #byId = new Map<number, Device>();

  constructor(
    /** Position among the VM's ITSes. */
    readonly index: number,
    /** Guest-physical base of its 128 KiB frame, undefined until it is set. */
    public base: bigint | undefined,
    /** Its own, or the VM's. */
    readonly cache: TranslationCache,
  ) {}

  get baser0(): bigint {
    return this.#baser0;
  }
  set baser0(word: bigint) {
    this.#baser0 = word;
    this.deviceTable = extent(word);
  }
  get baser1(): bigint {
    return this.#baser1;
  }
  set baser1(word: bigint) {
    this.#baser1 = word;
    this.collectionTable = extent(word);
  }

  /** The devices in the kernel's list order. */
  get devices(): readonly Device[] {
    return (this.#list ??= [...this.#devices]);
  }

  /** The first device with this id in list order. */
  device(id: number): Device | undefined {
    return this.#byId.get(id);
  }

  addDevice(device: Device): void {
    this.#devices.add(device);
    this.#list = undefined;
    if (!this.#byId.has(device.id)) this.#byId.set(device.id, device);
  }

  /** Frees a device and its entries. Every freed device empties the translation cache. */
  freeDevice(device: Device, lpis: LpiStore): void {
    const hasTwins = this.#devices.size > this.#byId.size;
    this.#devices.delete(device);
    this.#list = undefined;
    freeEntries(device, lpis);
    this.cache.empty(lpis);
    if (this.#byId.get(device.id) !== device) return;
    this.#byId.delete(device.id);
    if (!hasTwins) return;
    const twin = this.devices.find(({ id }) => id === device.id);
    if (twin !== undefined) this.#byId.set(twin.id, twin);
  }

  freeDevices(lpis: LpiStore): void {
    for (const device of this.#devices) freeEntries(device, lpis);
    if (this.#devices.size > 0) this.cache.empty(lpis);
    this.#setDevices([]);
  }

  /** Takes back the devices added since there were `count` of them. */
  truncateDevices(count: number, lpis: LpiStore): void {
    for (const device of this.devices.slice(count)) freeEntries(device, lpis);
    this.#setDevices(this.devices.slice(0, count));
  }

  /**
   * Sorts devices by id as a save does. Of two with one id the kernel's list sort puts the later
   * first, since its comparison never answers "equal".
   */
  sortDevices(): void {
    const ascending = this.devices.every(({ id }, at) => at === 0 || this.devices[at - 1]!.id < id);
    if (ascending) return;
    this.#setDevices(this.devices.toReversed().sort((a, b) => a.id - b.id));
  }

  #setDevices(devices: readonly Device[]): void {
    this.#devices = new Set(devices);
    this.#list = undefined;
    this.#byId.clear();
    for (const device of devices) if (!this.#byId.has(device.id)) this.#byId.set(device.id, device);
  }

  /** The collection of an entry; undefined if it was freed. */
  collectionOf(device: Device, row: number): Collection | undefined {
    return this.collections.get(device.collection(row));
  }

  clone(cache: TranslationCache): Its {
    const copy = new Its(this.index, this.base, cache);
    copy.enabled = this.enabled;
    copy.cbaser = this.cbaser;
    copy.creadr = this.creadr;
    copy.cwriter = this.cwriter;
    copy.baser0 = this.baser0;
    copy.baser1 = this.baser1;
    copy.collections = this.collections.clone();
    for (const device of this.devices) copy.addDevice(device.clone());
    return copy;
  }
}

function extent(word: bigint): TableExtent {
  const { valid, indirect, address, pages } = gitsBaser.decode(word);
  return { valid, indirect, start: Number(address), bytes: pages * TABLE_PAGE_BYTES };
}

function freeEntries(device: Device, lpis: LpiStore): void {
  for (let row = 0; row < device.count; row++) {
    const slot = device.lpi(row);
    lpis.unmap(slot);
  }
}
