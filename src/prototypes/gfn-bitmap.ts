import { type PageIndex } from '../api/index.js';
import { type ModelKernel, type PageRequest } from '../backends/memory/index.js';
import { ERRNO } from '../backends/memory/errno.js';
import { byUserfaultfd, throughMapping } from './contents.js';
import { type Surroundings } from './definition.js';

const VMM = { kind: 'vmm' } as const;

export interface GfnBitmapOptions {
  /** `after`: a page counts as present once its contents are written. `before`: the mistake. */
  readonly publish: 'after' | 'before';
  /** Called when pages that were present are marked missing again. */
  readonly onLate?: (page: PageIndex) => void;
}

/**
 * Presence as one bit a page, beside the page table, and what the VMM does around it to bring a page: contents
 * first, through its mapping or a userfaultfd, then the bit. Everything starts missing.
 */
export class GfnBitmap {
  #present = new Uint8Array(0);
  /** Missing to the kernel, though the VMM knows that their contents are there. */
  readonly #frozen = new Set<PageIndex>();
  readonly #surroundings: Surroundings;
  readonly #options: GfnBitmapOptions;

  constructor(surroundings: Surroundings, options: GfnBitmapOptions) {
    this.#surroundings = surroundings;
    this.#options = options;
  }

  isMissing(page: PageIndex): boolean {
    return !this.#present[page];
  }

  markPresent(page: PageIndex, kernel: ModelKernel): void {
    if (this.#present.length === 0) this.#present = new Uint8Array(kernel.memory.layout.pageCount);
    this.#present[page] = 1;
    kernel.trace?.({ actor: VMM, kind: 'marked', present: true, page });
  }

  /** Takes a page back: its contents will not be needed. */
  discard(page: PageIndex): void {
    this.#frozen.delete(page);
    this.#clear(page);
  }

  /** One page of a resolution; undefined for what is not the bitmap's affair. */
  carryOut(request: PageRequest, kernel: ModelKernel): number | undefined {
    switch (request.verb) {
      case 'copy':
      case 'zeropage':
      case 'move':
      case 'continue':
      case 'poison':
        return this.#surroundings.userfaultfd ? this.#beside(request, kernel) : this.#alone(request, kernel);
      case 'rwprotect':
        return this.#freeze(request, kernel);
      case 'writeprotect':
      case 'wake':
      case 'fail':
        return undefined;
    }
  }

  /** Two operations make one page present, and EEXIST from the first is no reason to leave out the second. */
  #beside(request: PageRequest, kernel: ModelKernel): number {
    const { verb, page } = request;
    const errno = byUserfaultfd(request, kernel);
    if (errno !== 0 && errno !== ERRNO.EEXIST) return errno;
    kernel.trace?.({ actor: VMM, kind: 'verb', verb, errno, page });
    // What installs a page holds it to be frozen no more: it was removed meanwhile.
    this.#frozen.delete(page);
    if (this.isMissing(page)) this.markPresent(page, kernel);
    return errno;
  }

  #alone(request: PageRequest, kernel: ModelKernel): number {
    const { page } = request;
    if (this.#frozen.delete(page)) this.markPresent(page, kernel);
    if (!this.isMissing(page)) return ERRNO.EEXIST;
    if (this.#options.publish === 'before') this.markPresent(page, kernel);
    const errno = throughMapping(request, kernel);
    if (errno !== 0) return errno;
    kernel.trace?.({ actor: VMM, kind: 'contents-written', page });
    if (this.#options.publish === 'after') this.markPresent(page, kernel);
    return 0;
  }

  /** Marking present pages missing keeps their contents; marking them present again needs none. */
  #freeze(request: PageRequest, kernel: ModelKernel): number {
    const { page, protect } = request;
    if (this.#surroundings.userfaultfd) byUserfaultfd(request, kernel);
    if (protect && !this.isMissing(page)) {
      this.#frozen.add(page);
      this.#clear(page);
      kernel.trace?.({ actor: VMM, kind: 'marked', present: false, page });
    } else if (!protect && this.#frozen.delete(page)) this.markPresent(page, kernel);
    return 0;
  }

  #clear(page: PageIndex): void {
    if (this.isMissing(page)) return;
    this.#present[page] = 0;
    this.#options.onLate?.(page);
  }
}
