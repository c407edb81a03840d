import { type PageRange } from '../../api/address.js';
import { settleFound } from '../../api/contents.js';
import { DemandPagingError } from '../../api/error.js';
import { type Region } from '../../api/layout.js';
import { type PageStates } from '../../api/page-states.js';
import { discardPagesOf } from '../../linux/discard-memory.js';
import { FoundMemory, ProcessMaps } from '../../linux/index.js';
import { fileOf, isOurs, type RegionMemory } from './region-memory.js';

/** How often pages that accessors touch while they are not yet watched are discarded. */
const MOST_ROUNDS = 16;

/** One region's memory, as it was before paging. */
interface Looked {
  readonly region: Region;
  readonly memory: RegionMemory;
  readonly found: FoundMemory;
}

/**
 * Sees to it that every page of the memory is one of which somebody hears: the states know it, or an access
 * to it faults. Made before the memory is registered.
 */
export class RegionContents {
  readonly #states: PageStates;
  readonly #looked: Looked[] = [];

  constructor(regions: readonly Region[], memory: readonly RegionMemory[], states: PageStates) {
    this.#states = states;
    const maps = memory.every(isOurs) ? undefined : ProcessMaps.read();
    try {
      for (const [i, region] of regions.entries())
        this.#looked.push({ region, memory: memory[i]!, found: foundIn(region, memory[i]!, maps) });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Looks at the memory and settles what it has. It is registered while it is looked at, so that no page
   * comes unheard of after the look; and not while pages are discarded, which would wait for whoever reads
   * the events of it. An accessor that touches a page in between has made one more to discard: then it is
   * looked at again.
   *
   * Errors: NOT_EMPTY, PAGE_VANISHED; what {@link FoundMemory} and discarding throw.
   */
  settle(register: () => void, unregister: () => void): void {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      register();
      const discards = this.#looked.flatMap((looked) => this.#discards(looked));
      if (discards.length === 0) return;
      unregister();
      for (const { looked, pages } of discards) {
        const { region, memory } = looked;
        discardPagesOf(region, { address: memory.start, file: fileOf(memory) }, pages);
      }
    }
    throw new DemandPagingError(
      'NOT_EMPTY',
      'accessors touch the memory again and again while it is emptied',
      {
        hint: 'Open the pager before they run',
      },
    );
  }

  close(): void {
    for (const { found } of this.#looked) found.close();
  }

  #discards(looked: Looked): { readonly looked: Looked; readonly pages: PageRange }[] {
    const { region, memory, found } = looked;
    const choice = isOurs(memory) ? 'discard' : region.contents;
    const discards = settleFound(region, found, this.#states, choice);
    return discards.map((pages) => ({ looked, pages }));
  }
}

function foundIn(
  { memory: kind, pageSize, length }: Region,
  memory: RegionMemory,
  maps: ProcessMaps | undefined,
): FoundMemory {
  return new FoundMemory({
    address: memory.start,
    length: Number(length),
    pageSize,
    hugePageSize: kind === 'hugetlb' ? pageSize : undefined,
    shared: kind !== 'anonymous',
    fresh: isOurs(memory),
    file: fileOf(memory),
    maps,
  });
}
