/** Names a collection from its entries; a freed collection's handle is never given out again. */
export type CollectionHandle = number;

/** RDBase of a collection that is not mapped to a vCPU. */
export const UNMAPPED_TARGET = 0xffff_ffff;

/** A collection: an ICID and the RDbase it is mapped to, or {@link UNMAPPED_TARGET}. */
export interface Collection {
  readonly handle: CollectionHandle;
  readonly id: number;
  target: number;
}

/**
 * The collections of an ITS in order of creation, which is the order a save writes them in. Entries
 * keep a handle, not the collection: freeing one leaves its entries without a collection at no cost,
 * where the kernel walks every entry.
 */
export class CollectionList {
  #byHandle = new Map<CollectionHandle, Collection>();
  #byId = new Map<number, Collection>();
  #next = 1;

  get count(): number {
    return this.#byId.size;
  }

  [Symbol.iterator](): IterableIterator<Collection> {
    return this.#byHandle.values();
  }

  /** By ICID. */
  find(id: number): Collection | undefined {
    return this.#byId.get(id);
  }

  /** By handle; undefined once it was freed. */
  get(handle: CollectionHandle): Collection | undefined {
    return this.#byHandle.get(handle);
  }

  /** Adds a collection whose ICID must be free. */
  add(id: number, target: number): Collection {
    const collection: Collection = { handle: this.#next++, id, target };
    this.#byHandle.set(collection.handle, collection);
    this.#byId.set(id, collection);
    return collection;
  }

  free(id: number): void {
    const collection = this.#byId.get(id);
    if (collection === undefined) return;
    this.#byId.delete(id);
    this.#byHandle.delete(collection.handle);
  }

  freeAll(): void {
    this.#byHandle.clear();
    this.#byId.clear();
  }

  clone(): CollectionList {
    const copy = new CollectionList();
    for (const collection of this) {
      const twin = { ...collection };
      copy.#byHandle.set(twin.handle, twin);
      copy.#byId.set(twin.id, twin);
    }
    copy.#next = this.#next;
    return copy;
  }
}

/** Is the collection mapped to a vCPU? */
export const isMapped = (collection: Collection | undefined): collection is Collection =>
  collection !== undefined && collection.target !== UNMAPPED_TARGET;
