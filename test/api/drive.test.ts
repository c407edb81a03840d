import { describe, expect, it } from 'vitest';
import {
  type Access,
  DemandPagingError,
  type Gpa,
  type Program,
  type ProgramMemory,
  drive,
  driveErroring,
  driveRetrying,
  driveSync,
  gpa,
  hint,
  isVisible,
  readWindow,
  writeBytes,
} from '../../src/api/index.js';

const BASE = 0x8000_0000n;
const PAGES = 8;

/** Eight pages at BASE, page n filled with n, present once brought. */
class Pages implements ProgramMemory {
  readonly bytes = Uint8Array.from({ length: PAGES * 4096 }, (_, at) => Math.floor(at / 4096));
  readonly present = new Set<number>();
  readonly brought: number[] = [];
  readonly hinted: bigint[] = [];
  readonly layout = {
    regionAt: (at: Gpa) => (at >= BASE && at < BASE + BigInt(this.bytes.length) ? {} : undefined),
  };

  isPresent = ({ start }: { start: Gpa }): boolean => this.present.has(this.#page(start));

  readSync(at: Gpa, length: number): Uint8Array {
    this.#require(at);
    return this.bytes.slice(Number(at - BASE), Number(at - BASE) + length);
  }

  writeSync(at: Gpa, bytes: Uint8Array): void {
    this.#require(at);
    this.bytes.set(bytes, Number(at - BASE));
  }

  async bring(ranges: readonly { start: Gpa }[]): Promise<void> {
    await Promise.resolve();
    for (const { start } of ranges) {
      this.brought.push(this.#page(start));
      this.present.add(this.#page(start));
    }
  }

  hint(ranges: readonly { start: Gpa }[]): void {
    this.hinted.push(...ranges.map(({ start }) => start));
  }

  #page = (at: Gpa): number => Number((at - BASE) / 4096n);

  #require(at: Gpa): void {
    if (!this.isPresent({ start: at }))
      throw new DemandPagingError('PAGE_MISSING', `page ${this.#page(at)} is missing`);
  }
}

const page = (n: number): Gpa => gpa(BASE + BigInt(n) * 4096n);

/**
 * Follows a chain: the first byte of each page, plus two, names the next. Ends past the memory, where reading
 * gives EFAULT.
 */
function* chain(): Program<string[]> {
  const seen: string[] = [];
  yield* hint('chain', [{ start: page(0), length: 4096n }]);
  for (let at = 0; ;) {
    const window = yield* readWindow(page(at));
    if (typeof window === 'number') return [...seen, `errno ${window}`];
    seen.push(`page ${window[0]!}`);
    const failed = yield* writeBytes(gpa(page(at) + 8n), Uint8Array.of(0xaa));
    if (failed) return [...seen, `write errno ${failed}`];
    at = window[0]! + 2;
    if (!(yield* isVisible(page(at)))) seen.push('not visible');
  }
}

const whole = ['page 0', 'page 2', 'page 4', 'page 6', 'not visible', 'errno 14'];

describe('drivers', () => {
  it('drive: each missing page that is accessed is brought, and no other', async () => {
    const memory = new Pages();
    const trace: Access[] = [];
    expect(await drive(chain(), memory, { trace: (access) => trace.push(access) })).toEqual(whole);
    expect(memory.brought).toEqual([0, 2, 4, 6]);
    expect(trace.filter(({ missed }) => missed).map(({ ask }) => ask.ask)).toEqual([
      'read',
      'read',
      'read',
      'read',
    ]);
    expect([memory.bytes[8], memory.bytes[4096 + 8], memory.hinted]).toEqual([0xaa, 1, [BASE]]);
  });

  it('driveSync with a missing page: PAGE_MISSING, and the program is over', () => {
    const memory = new Pages();
    for (let n = 0; n < PAGES; n++) memory.present.add(n);
    expect(driveSync(chain(), memory)).toEqual(whole);
    memory.present.delete(4);
    expect(() => driveSync(chain(), memory)).toThrow(expect.objectContaining({ code: 'PAGE_MISSING' }));
  });

  it('driveErroring: the access fails, and each retry finds one page more', async () => {
    const memory = new Pages();
    expect(driveErroring(chain(), memory)).toEqual({ result: ['errno 14'], missed: [page(0)] });
    expect(await driveRetrying(chain, memory)).toEqual({ result: whole, runs: 5 });
  });

  it('driveRetrying of a program that misses ever new pages: it ends', async () => {
    const memory = new Pages();
    memory.bring = () => Promise.resolve(); // brings nothing
    await expect(driveRetrying(chain, memory, { attempts: 3 })).rejects.toThrow(RangeError);
  });

  it("drivers on a poisoned page: the kernel's errno; on other errors: passed on", async () => {
    const memory = new Pages();
    memory.readSync = () => {
      throw new DemandPagingError('PAGE_POISONED', 'poisoned');
    };
    expect(await drive(chain(), memory)).toEqual(['errno 14']);
    memory.readSync = () => {
      throw new DemandPagingError('CLOSED', 'closed');
    };
    await expect(drive(chain(), memory)).rejects.toMatchObject({ code: 'CLOSED' });
  });
});
