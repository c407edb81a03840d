import { type PagerPolicy } from 'demand-paging';
import { CHandler } from './c-handler.js';
import { type Comparison, type Rounds, type Side, compare } from './comparison.js';
import { Library } from './library.js';
import { type NativePrograms, type SharedHalf, loadSharedHalf } from './native.js';
import { type BenchResult } from './result.js';
import { type FaultRun, type Memory, type Place, bytesOf } from './run.js';
import { touchMemory } from './touch-memory.js';

const PAGE_SIZE = 4096;
/**
 * Pages in one piece of the C program's bulk copy: among 1, 256, 512 and all pages the fastest here, by a
 * little.
 */
const BULK_PIECE_PAGES = 8192;
/** What a VMM that expects sequential accesses sets: one fetch of 1 MiB around each fault. */
const SEQUENTIAL_AROUND_PAGES = 256;
/** What a VMM sets that only populates: no fault has to wait behind a piece. */
const POPULATION_PIECE_PAGES = 1024;
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

const faultRun = (
  wait: FaultRun['wait'],
  order: FaultRun['order'],
  place: Place,
  round: number,
): FaultRun => ({ wait, order, seed: round + 1, place });

function cSide({ c }: Sides, wait: FaultRun['wait'], order: FaultRun['order'], place: Place): Side {
  return {
    what: `C, ${wait === 'block' ? 'blocking' : 'spinning'}`,
    run: (round) => c.faults(faultRun(wait, order, place, round)),
  };
}

function librarySide(
  { library }: Sides,
  wait: FaultRun['wait'],
  order: FaultRun['order'],
  place: Place,
  policy: Partial<PagerPolicy>,
): Side {
  return {
    what: `fault-around ${policy.faultAroundPages}`,
    run: (round) => library.faults(faultRun(wait, order, place, round), policy),
  };
}

function cBulk({ c, memory }: Sides, place: Place): Side {
  const piece = Math.min(BULK_PIECE_PAGES, memory.pages) * memory.pageSize;
  return { what: 'C, bulk UFFDIO_COPY', run: () => c.bulk(piece, place) };
}

function random(sides: Sides, wait: FaultRun['wait'], place: Place, where: string): Comparison {
  const reference = { ...cSide(sides, wait, 'random', place), goal: { atLeast: 0.9 } };
  const name = `random order, ${wait === 'block' ? 'blocking' : 'spinning'}, ${where}`;
  return { name, ours: librarySide(sides, wait, 'random', place, NO_AROUND), references: [reference] };
}

function sequential(sides: Sides, place: Place, where: string): Comparison {
  const blocking = cSide(sides, 'block', 'sequential', place);
  return {
    name: `sequential, blocking, ${where}`,
    ours: librarySide(sides, 'block', 'sequential', place, { faultAroundPages: SEQUENTIAL_AROUND_PAGES }),
    references: [
      // On one cpu a fault costs the C handler only four or five pages' copying: no handler can be five times
      // as fast.
      place === APART ? { ...blocking, goal: { atLeast: 5 } } : blocking,
      { ...cBulk(sides, place), goal: { atLeast: 0.6 } },
    ],
  };
}

function bulk(sides: Sides): Comparison {
  const ours = {
    what: `prefetch(), ${POPULATION_PIECE_PAGES} pages a piece`,
    run: () => sides.library.populate({ prefetchPages: POPULATION_PIECE_PAGES }, APART),
  };
  return {
    name: 'population of everything',
    ours,
    references: [{ ...cBulk(sides, APART), goal: { atLeast: 0.9 } }],
  };
}

/**
 * Populating goes many times as fast as serving faults: more memory for it, or it is over before it began.
 */
const POPULATION_FACTOR = 8;

interface Entry {
  readonly comparison: (sides: Sides) => Comparison;
  readonly pagesFactor: number;
}

const faults = (comparison: Entry['comparison']): Entry => ({ comparison, pagesFactor: 1 });

const COMPARISONS: Readonly<Record<string, Entry>> = {
  'random-blocking': faults((sides) => random(sides, 'block', APART, 'two cpus')),
  'random-blocking-one-cpu': faults((sides) => random(sides, 'block', TOGETHER, 'one cpu')),
  'random-spinning': faults((sides) => random(sides, 'spin', APART, 'two cpus')),
  sequential: faults((sides) => sequential(sides, APART, 'two cpus')),
  'sequential-one-cpu': faults((sides) => sequential(sides, TOGETHER, 'one cpu')),
  population: { comparison: bulk, pagesFactor: POPULATION_FACTOR },
};

export const PAGING_NAMES = Object.keys(COMPARISONS);

export interface PagingOptions {
  /** Pages of a comparison that serves faults. */
  readonly pages: number;
  /** Of the snapshot. */
  readonly seed: number;
  readonly rounds: number;
  /** Of {@link PAGING_NAMES}. */
  readonly names: readonly string[];
  readonly progress: NonNullable<Rounds['progress']>;
}

/** Measures the library against the C handler. Throws CannotMeasure. */
export async function measurePaging(
  programs: NativePrograms,
  options: PagingOptions,
): Promise<BenchResult[]> {
  const shared = loadSharedHalf(programs);
  const results: BenchResult[] = [];
  for (const name of options.names) {
    const { comparison, pagesFactor } = COMPARISONS[name]!;
    const memory = { pages: options.pages * pagesFactor, pageSize: PAGE_SIZE, seed: options.seed };
    const sides = { c: new CHandler(programs, memory), library: new Library(shared, memory), memory };
    const sum = snapshotSum(shared, memory);
    results.push(
      ...(await compare(comparison(sides), {
        count: options.rounds,
        sum,
        prepare: touchMemory,
        progress: options.progress,
      })),
    );
  }
  return results;
}

export function snapshotSum(shared: SharedHalf, memory: Memory): bigint {
  const length = bytesOf(memory);
  const snapshot = shared.makeSnapshot(length, memory.seed);
  const sum = shared.sumWords(snapshot, length);
  shared.unmap(snapshot, length);
  return sum;
}
