import { type PagerPolicy } from 'demand-paging';
import { CHandler } from './c-handler.js';
import { type Comparison, type Rounds, type Side, compare } from './comparison.js';
import { Library } from './library.js';
import { type NativePrograms, loadSharedHalf } from './native.js';
import { type BenchResult } from './result.js';
import { type FaultRun, type Memory, type Place, bytesOf } from './run.js';

/** Pages in one piece of the C program's bulk copy: among 1, 256, 512 and all pages the fastest here, by a little. */
const BULK_PIECE_PAGES = 8192;
/** What a VMM that expects sequential accesses sets: one fetch of 1 MiB around each fault. */
const SEQUENTIAL_AROUND_PAGES = 256;
/** Random order: every neighbour fetched would be a page the C handler did not bring, so none is. */
const NO_AROUND: Partial<PagerPolicy> = { faultAroundPages: 1 };

/** Handler and toucher on a cpu each, and both on one. See {@link Place}. */
const APART: Place = { handler: 1, toucher: 0 };
const TOGETHER: Place = { handler: 0, toucher: 0 };

interface Sides {
  readonly c: CHandler;
  readonly library: Library;
  readonly memory: Memory;
}

const faultRun = (wait: FaultRun['wait'], order: FaultRun['order'], place: Place, round: number): FaultRun => ({ wait, order, seed: round + 1, place });

function cSide({ c }: Sides, wait: FaultRun['wait'], order: FaultRun['order'], place: Place): Side {
  return { what: `C, ${wait === 'block' ? 'blocking' : 'spinning'}`, run: (round) => c.faults(faultRun(wait, order, place, round)) };
}

function librarySide({ library }: Sides, wait: FaultRun['wait'], order: FaultRun['order'], place: Place, policy: Partial<PagerPolicy>): Side {
  return { what: `fault-around ${policy.faultAroundPages}`, run: (round) => library.faults(faultRun(wait, order, place, round), policy) };
}

const cBulk = ({ c, memory }: Sides): Side => ({ what: 'C, bulk UFFDIO_COPY', run: () => c.bulk(Math.min(BULK_PIECE_PAGES, memory.pages) * memory.pageSize) });

function random(sides: Sides, wait: FaultRun['wait'], place: Place, where: string): Comparison {
  const reference = { ...cSide(sides, wait, 'random', place), goal: { atLeast: 0.9 } };
  const name = `random order, ${wait === 'block' ? 'blocking' : 'spinning'}, ${where}`;
  return { name, ours: librarySide(sides, wait, 'random', place, NO_AROUND), references: [reference] };
}

function sequential(sides: Sides, place: Place, where: string): Comparison {
  return {
    name: `sequential, blocking, ${where}`,
    ours: librarySide(sides, 'block', 'sequential', place, { faultAroundPages: SEQUENTIAL_AROUND_PAGES }),
    references: [
      { ...cSide(sides, 'block', 'sequential', place), goal: { atLeast: 5 } },
      { ...cBulk(sides), goal: { atLeast: 0.6 } },
    ],
  };
}

function bulk(sides: Sides): Comparison {
  const ours = { what: 'prefetch()', run: () => sides.library.populate({}, APART) };
  return { name: 'population of everything', ours, references: [{ ...cBulk(sides), goal: { atLeast: 0.9 } }] };
}

const comparisons: Readonly<Record<string, (sides: Sides) => Comparison>> = {
  'random-blocking': (sides) => random(sides, 'block', APART, 'two cpus'),
  'random-blocking-one-cpu': (sides) => random(sides, 'block', TOGETHER, 'one cpu'),
  'random-spinning': (sides) => random(sides, 'spin', APART, 'two cpus'),
  'sequential': (sides) => sequential(sides, APART, 'two cpus'),
  'sequential-one-cpu': (sides) => sequential(sides, TOGETHER, 'one cpu'),
  'population': bulk,
};

export const PAGING_NAMES = Object.keys(comparisons);

export interface PagingOptions {
  readonly memory: Memory;
  readonly rounds: number;
  /** Of {@link PAGING_NAMES}. */
  readonly names: readonly string[];
  readonly progress: Rounds['progress'];
}

/** Measures the library against the C handler. Throws CannotMeasure. */
export async function measurePaging(programs: NativePrograms, options: PagingOptions): Promise<BenchResult[]> {
  const { memory, rounds, progress } = options;
  const length = bytesOf(memory);
  const shared = loadSharedHalf(programs);
  const snapshot = shared.makeSnapshot(length, memory.seed);
  await using c = new CHandler(programs, memory);
  const sides = { c, library: new Library(shared, memory, snapshot), memory };
  try {
    const sum = shared.sumWords(snapshot, length);
    const results: BenchResult[] = [];
    for (const name of options.names) {
      results.push(...(await compare(comparisons[name]!(sides), { count: rounds, sum, ...(progress && { progress }) })));
    }
    return results;
  } finally {
    shared.unmap(snapshot, length);
  }
}
