import { type AccessSite } from '../api/access.js';
import {
  copyMemory,
  ERRNO,
  libc,
  Mapping,
  NativeBlock,
  raw,
  readMemory,
  writeMemory,
} from '../linux/index.js';

/** The sites that can be exercised without KVM or another kernel device. */
export type NativeSite = Extract<
  AccessSite,
  'vmm-load' | 'vmm-store' | 'vmm-syscall' | 'kernel-copy' | 'external-vm-readv'
>;

/** How each site is exercised, in a few words. */
export const HOW: Readonly<Record<NativeSite, string>> = {
  'vmm-load': 'memcpy from the page',
  'vmm-store': 'atomic compare-and-swap of a byte of the page',
  'vmm-syscall': 'the page as the buffer of write(2) and read(2) on a pipe',
  'kernel-copy': 'process_vm_readv(2) of this process: the kernel reaches for the page',
  'external-vm-readv': 'process_vm_readv(2) from another process',
};

/** Memory of the process whose pages are served, as a walk accesses it. */
export interface TouchRegion {
  readonly address: number;
  readonly length: number;
  readonly pageSize: number;
}

/**
 * One way of accessing memory, on the thread that created it. Results are bytes done or `-errno`; a missing
 * page stops the thread inside the call. `vmm-load` and `vmm-store` of a poisoned page end the process by
 * SIGBUS.
 */
export interface Touch {
  /** The bytes that reads fill and writes take. */
  readonly block: NativeBlock;
  read(address: number, length: number): number;
  write(address: number, length: number): number;
  /**
   * What a walk does to each page. It leaves the page's contents in {@link block} and in memory as they were.
   */
  visit(address: number, length: number): number;
  close(): void;
}

/** Opens a touch. `pid`: the process whose memory it is, if it is not this one. */
export function openTouch(site: NativeSite, regions: readonly TouchRegion[], pid?: number): Touch {
  const block = new NativeBlock(Math.max(...regions.map(({ pageSize }) => pageSize)));
  const copyIn = (address: number, length: number): number => {
    copyMemory(block.address, address, length);
    return length;
  };
  const copyOut = (address: number, length: number): number => {
    copyMemory(address, block.address, length);
    return length;
  };
  const close = (): void => block.free();
  switch (site) {
    case 'vmm-load':
      return { block, read: copyIn, write: refuse, visit: copyIn, close };
    case 'vmm-store':
      return new Store(block, regions, copyIn, copyOut);
    case 'vmm-syscall':
      return new PipeTouch(block);
    case 'kernel-copy':
    case 'external-vm-readv': {
      const read = (address: number, length: number): number =>
        readMemory(block.address, address, length, pid);
      const write = (address: number, length: number): number =>
        writeMemory(address, block.address, length, pid);
      return { block, read, write, visit: read, close };
    }
  }
}

const refuse = (): number => -ERRNO.EINVAL;

type Move = (address: number, length: number) => number;

/** Stores. The first access of a visit is one, which keeps the contents. */
class Store implements Touch {
  readonly read: Move = refuse;
  readonly #mappings: readonly Mapping[];

  constructor(
    readonly block: NativeBlock,
    regions: readonly TouchRegion[],
    readonly copyIn: Move,
    readonly write: Move,
  ) {
    this.#mappings = regions.map((region) => Mapping.borrow({ kind: 'anonymous', fd: undefined, ...region }));
  }

  visit(address: number, length: number): number {
    const mapping = this.#mappings.find(
      (each) => address >= each.address && address < each.address + each.length,
    );
    if (mapping === undefined) return -ERRNO.EFAULT;
    // Replacing 0 by 0 keeps any byte, and being atomic it cannot undo what another thread stores meanwhile.
    // On x86-64 it is one locked instruction, which faults as a write; other atomics of V8 load first.
    Atomics.compareExchange(mapping.bytes(address - mapping.address, 1), 0, 0, 0);
    return this.copyIn(address, length);
  }

  close(): void {
    for (const mapping of this.#mappings) mapping.dispose();
    this.block.free();
  }
}

/** At most what an empty pipe always accepts in one write. */
const PIPE_PIECE = 32 * 1024;
const O_CLOEXEC = 0o2000000;

/** The page as a system call's buffer: the kernel copies out of it into a pipe, or into it from one. */
class PipeTouch implements Touch {
  readonly #in: number;
  readonly #out: number;

  constructor(readonly block: NativeBlock) {
    const failed = libc().pipe2(block.address, O_CLOEXEC) === -1;
    [this.#out, this.#in] = failed ? [-1, -1] : (block.words as unknown as [number, number]);
  }

  read = (address: number, length: number): number =>
    this.#pump(length, (done) => [address + done, this.block.address + done]);
  write = (address: number, length: number): number =>
    this.#pump(length, (done) => [this.block.address + done, address + done]);
  visit = this.read;

  #pump(length: number, at: (done: number) => readonly [from: number, to: number]): number {
    for (let done = 0; done < length;) {
      const [from, to] = at(done);
      const written = raw.write(this.#in, from, Math.min(PIPE_PIECE, length - done));
      if (written < 0) return written;
      for (let moved = 0; moved < written;) {
        const read = raw.read(this.#out, to + moved, written - moved);
        if (read < 0) {
          this.#drain(written - moved);
          return read;
        }
        moved += read;
      }
      done += written;
    }
    return length;
  }

  /** Bytes that could not be placed must not be the next access's. */
  #drain(left: number): void {
    while (left > 0) {
      const read = raw.read(this.#out, this.block.address, Math.min(left, this.block.length));
      if (read <= 0) return;
      left -= read;
    }
  }

  close(): void {
    raw.close(this.#in);
    raw.close(this.#out);
    this.block.free();
  }
}
