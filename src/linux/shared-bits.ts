import { systemError } from './failure.js';
import { NativeBlock } from './native-block.js';
import * as raw from './raw.js';

const WAKE_OP_PRIVATE = 5 | 128;
/** Operations of FUTEX_WAKE_OP, and what makes the argument a bit number. */
const OP = { SET: 0, OR: 2, ANDN: 3, SHIFTED: 8 } as const;
const ALL_ONES = 0xfff; // sign-extended from 12 bits
const WORD_BITS = 32;

/**
 * A bitmap in native memory that the kernel and other threads read while it changes. Bits are changed by
 * atomic operations that are full barriers, so that a thread that sees a changed bit sees everything written
 * before. The runtime guarantees neither for memory that is not its own; the kernel does, for FUTEX_WAKE_OP,
 * which wakes no thread here.
 *
 * Blocks: never. Errors: KERNEL with errno (EFAULT: the memory is gone). Source: futex(2), FUTEX_WAKE_OP.
 */
export class SharedBits {
  readonly address: number;
  readonly #block: NativeBlock | undefined;

  private constructor(address: number, block?: NativeBlock) {
    this.address = address;
    this.#block = block;
  }

  /** `bits` bits, none of them set, rounded up to 64. */
  static create(bits: number): SharedBits {
    const block = new NativeBlock(Math.ceil(bits / 64) * 8);
    return new SharedBits(block.address, block);
  }

  /** Bits that another isolate made and frees. */
  static borrow(address: number): SharedBits {
    return new SharedBits(address);
  }

  set(first: number, count: number): void {
    this.#change(first, count, OP.OR, ALL_ONES);
  }

  clear(first: number, count: number): void {
    this.#change(first, count, OP.ANDN, 0);
  }

  /** The bitmap as it is now, by words of 32 bits; for the isolate that created it. */
  words(): Uint32Array {
    return this.#block?.words ?? new Uint32Array(0);
  }

  free(): void {
    this.#block?.free();
  }

  #change(first: number, count: number, op: number, whole: number): void {
    for (let bit = first; bit < first + count;) {
      const inWord = bit % WORD_BITS;
      const address = this.address + ((bit - inWord) / WORD_BITS) * 4;
      if (inWord === 0 && bit + WORD_BITS <= first + count) {
        atomically(address, OP.SET, whole); // no other region has a bit in this word
        bit += WORD_BITS;
      } else {
        atomically(address, op | OP.SHIFTED, inWord);
        bit++;
      }
    }
  }
}

function atomically(address: number, op: number, argument: number): void {
  const operation = op * 2 ** 28 + argument * 2 ** 12;
  const result = raw.syscall('futex', address, WAKE_OP_PRIVATE, 0, 0, address, operation);
  if (result < 0) throw systemError('futex', -result, 'a shared bit cannot be changed');
}
