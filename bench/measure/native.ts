import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { CannotMeasure } from './failure.js';

/** The repository: programs are bundled elsewhere, so files are found from the package's root. */
export const ROOT = join(createRequire(import.meta.url).resolve('demand-paging/package.json'), '..');
const SOURCES = join(ROOT, 'bench', 'native');

/** The C half, compiled into a folder of its own that {@link dispose} removes. */
export class NativePrograms implements Disposable {
  readonly handler: string;
  readonly guest: string;
  readonly library: string;
  readonly #folder: string;
  readonly #remove = (): void => rmSync(this.#folder, { recursive: true, force: true });

  /** Throws CannotMeasure without a compiler, or with one that refuses the sources. */
  constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), 'demand-paging-bench-'));
    process.once('exit', this.#remove); // a run that is interrupted leaves nothing, either
    this.handler = join(this.#folder, 'handler');
    this.guest = join(this.#folder, 'guest');
    this.library = join(this.#folder, 'memory.so');
    try {
      const memory = join(SOURCES, 'memory.c');
      compile(['-o', this.handler, join(SOURCES, 'handler.c'), memory]);
      if (process.arch === 'x64') compile(['-o', this.guest, join(SOURCES, 'guest.c')]);
      compile(['-shared', '-fPIC', '-o', this.library, memory]);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    process.off('exit', this.#remove);
    this.#remove();
  }
}

function compile(args: readonly string[]): void {
  const { error, status, stderr } = spawnSync('gcc', ['-O2', '-Wall', '-Wextra', '-pthread', ...args], {
    encoding: 'utf8',
  });
  if (error) {
    throw new CannotMeasure(
      `gcc does not run: ${error.message}`,
      'The yardstick is a C program: install gcc and the C library headers',
    );
  }
  if (status !== 0)
    throw new CannotMeasure(
      `gcc refuses the yardstick:\n${stderr}`,
      'It needs linux/userfaultfd.h (linux-libc-dev)',
    );
}

/** The shared half of `memory.c`, in this process: the same snapshot, the same toucher, the same sum. */
export interface SharedHalf {
  makeSnapshot(length: number, seed: number): number;
  unmap(address: number, length: number): void;
  sumWords(address: number, length: number): bigint;
  /** Touches on a thread of its own; resolves with nanoseconds. The event loop goes on. */
  touchPages(
    address: number,
    pages: number,
    pageSize: number,
    shuffled: boolean,
    seed: number,
    cpu: number,
  ): Promise<number>;
}

export function loadSharedHalf({ library }: NativePrograms): SharedHalf {
  const shared = koffi.load(library);
  const snapshot = shared.func('make_snapshot', 'uintptr_t', ['size_t', 'uint64_t']);
  const sum = shared.func('sum_words', 'uint64_t', ['uintptr_t', 'size_t']);
  const touch = shared.func('touch_pages', 'uint64_t', [
    'uintptr_t',
    'uint32_t',
    'uint32_t',
    'int',
    'uint64_t',
    'int',
  ]);
  const munmap = koffi.load(null).func('munmap', 'int', ['uintptr_t', 'size_t']);
  return {
    makeSnapshot(length, seed) {
      const address = Number(snapshot(length, seed));
      if (address === 0)
        throw new CannotMeasure(
          `no ${length} bytes for the snapshot`,
          'Free memory, or measure fewer pages with --pages',
        );
      return address;
    },
    unmap: (address, length) => void munmap(address, length),
    sumWords: (address, length) => BigInt(sum(address, length) as number | bigint),
    touchPages: (address, pages, pageSize, shuffled, seed, cpu) =>
      new Promise((resolve, reject) => {
        touch.async(
          address,
          pages,
          pageSize,
          shuffled ? 1 : 0,
          seed,
          cpu,
          (error: unknown, took: number | bigint) => {
            if (error) reject(error instanceof Error ? error : new Error(String(error)));
            else if (Number(took) === 0) reject(new Error('the toucher could not be started'));
            else resolve(Number(took));
          },
        );
      }),
  };
}
