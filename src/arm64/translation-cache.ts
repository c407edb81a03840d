import type { LpiSlot, LpiStore } from './lpi-store.js';

/** Translations that a VM's cache holds for each of its vCPUs, on kernels where it is the VM's. */
const PER_VCPU = 16;

/** One event of one device of one ITS; both have 16 bits in whatever is cached. */
const keyOf = (its: number, device: number, event: number): number => (its * 65536 + device) * 65536 + event;

/**
 * The translations that were used, each of which holds its LPI: of one ITS without bound, or of a whole VM
 * with a bound, where the least recently used one makes room for the next.
 */
export class TranslationCache {
  /** Least recently used first, where there is a bound. */
  #slots = new Map<number, LpiSlot>();

  private constructor(private readonly bound: number) {}

  static ofIts(): TranslationCache {
    return new TranslationCache(Infinity);
  }

  static ofVm(vcpus: number): TranslationCache {
    return new TranslationCache(vcpus * PER_VCPU);
  }

  get(its: number, device: number, event: number): LpiSlot | undefined {
    if (device > 0xffff || event > 0xffff) return undefined;
    const key = keyOf(its, device, event);
    const slot = this.#slots.get(key);
    if (slot !== undefined && this.bound !== Infinity) this.#use(key, slot);
    return slot;
  }

  add(its: number, device: number, event: number, slot: LpiSlot, lpis: LpiStore): void {
    const key = keyOf(its, device, event);
    const old = this.#slots.get(key);
    if (this.bound !== Infinity) {
      if (old !== undefined) return this.#use(key, old);
      this.#makeRoom(lpis);
    }
    lpis.hold(slot);
    this.#slots.set(key, slot);
    if (old !== undefined) lpis.release(old);
  }

  empty(lpis: LpiStore): void {
    for (const slot of this.#slots.values()) lpis.release(slot);
    this.#slots.clear();
  }

  clone(): TranslationCache {
    const copy = new TranslationCache(this.bound);
    copy.#slots = new Map(this.#slots);
    return copy;
  }

  #use(key: number, slot: LpiSlot): void {
    this.#slots.delete(key);
    this.#slots.set(key, slot);
  }

  #makeRoom(lpis: LpiStore): void {
    if (this.#slots.size < this.bound) return;
    const [key, slot] = this.#slots.entries().next().value!;
    this.#slots.delete(key);
    lpis.release(slot);
  }
}
