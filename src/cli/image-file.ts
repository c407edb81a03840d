import { closeSync, fstatSync, readSync, type Stats } from 'node:fs';
import { DemandPagingError, type Gpa, type GpaRange, type ProgramMemory } from '../api/index.js';
import { openForReading } from '../sources/file-source.js';

/** A raw image of guest memory: its first byte is the guest's byte at `base`. */
export class ImageFile implements ProgramMemory, Disposable {
  readonly layout: { regionAt(address: Gpa): object | undefined };

  private constructor(
    /** Or a descriptor of this process. */
    readonly path: string | number,
    readonly base: bigint,
    /** Bytes. */
    readonly length: number,
    private readonly fd: number,
  ) {
    const end = base + BigInt(length);
    this.layout = { regionAt: (address) => (address >= base && address < end ? this : undefined) };
  }

  /**
   * `path`: or a descriptor of this process, which stays the caller's. `length`: how long it was found to be before,
   * whatever it has become. Default: as long as it is.
   * Errors: SOURCE_FAILED where it cannot be opened; BAD_ALIGNMENT, BAD_IMAGE for what is no image of whole pages.
   */
  static open(path: string | number, base: bigint, pageSize: number, length?: number): ImageFile {
    const fd = typeof path === 'number' ? path : openForReading(path);
    try {
      const bytes = length ?? checked(path, fstatSync(fd), base, pageSize).size;
      return new ImageFile(path, base, bytes, fd);
    } catch (error) {
      if (fd !== path) closeSync(fd);
      throw error;
    }
  }

  isPresent(): boolean {
    return true;
  }

  async bring(): Promise<void> {}

  hint(_ranges: readonly GpaRange[]): void {}

  readSync(address: Gpa, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.readInto(Number(address - this.base), bytes);
    return bytes;
  }

  /** An image is only looked at. */
  writeSync(): never {
    throw new DemandPagingError('NOT_SUPPORTED', 'an image file is not written');
  }

  /** Fills `into` from `offset`. Errors: SOURCE_LENGTH where the file has become shorter. */
  readInto(offset: number, into: Uint8Array): void {
    for (let done = 0; done < into.length;) {
      const read = readSync(this.fd, into, done, into.length - done, offset + done);
      if (read === 0)
        throw new DemandPagingError('SOURCE_LENGTH', `${this.path} ends at byte ${offset + done}`);
      done += read;
    }
  }

  [Symbol.dispose](): void {
    if (this.fd !== this.path) closeSync(this.fd);
  }
}

function checked(path: string | number, stat: Stats, base: bigint, pageSize: number): { size: number } {
  if (!stat.isFile())
    throw new DemandPagingError('BAD_IMAGE', `${path} is a block device: nothing says how long it is`);
  if (stat.size === 0) throw new DemandPagingError('BAD_IMAGE', `${path} is empty`);
  if (stat.size % pageSize !== 0) {
    throw new DemandPagingError(
      'BAD_ALIGNMENT',
      `${path} has ${stat.size} bytes, which is no multiple of the page size ${pageSize}`,
      { hint: 'A raw image holds whole pages: pad it, or check that it was copied completely' },
    );
  }
  if (base % BigInt(pageSize) !== 0n) {
    throw new DemandPagingError(
      'BAD_ALIGNMENT',
      `the base 0x${base.toString(16)} is no multiple of the page size ${pageSize}`,
    );
  }
  return stat;
}
