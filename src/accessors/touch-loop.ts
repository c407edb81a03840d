import { setImmediate } from 'node:timers/promises';
import { type PageRange } from '../api/address.js';
import { MemoryLayout } from '../api/layout.js';
import { ERRNO, MADV, raw } from '../linux/index.js';
import { type AccessResult } from './accessor.js';
import {
  type AccessMessage,
  type AccessorCommand,
  type AccessorData,
  type AccessorEvent,
} from './messages.js';
import { openTouch, type Touch } from './touch.js';
import { WalkTally } from './walk-tally.js';
import { pagesOf, type Walk, type WalkReport } from './walk.js';

/** After so many accesses of a walk, or so much time, commands are read. */
const SLICE_PAGES = 64;
const SLICE_MS = 20;

/** Makes accesses on command, in a thread or a process of its own. */
export class TouchLoop {
  readonly #layout: MemoryLayout;
  readonly #touch: Touch;
  readonly #send: (event: AccessorEvent) => void;
  #interrupted = false;
  /** Commands are carried out one after the other; `interrupt` overtakes. */
  #last: Promise<void> = Promise.resolve();

  constructor({ site, regions, other }: AccessorData, send: (event: AccessorEvent) => void) {
    this.#layout = new MemoryLayout(regions);
    const places = this.#layout.regions.map(({ hva, length, pageSize }) => ({
      address: Number(hva),
      length: Number(length),
      pageSize,
    }));
    this.#touch = openTouch(site, places, other?.pid);
    this.#send = send;
    const trial = other ? this.#touch.read(other.trial, 1) : 0;
    send({ kind: 'ready', thread: raw.syscall('gettid'), errno: Math.max(0, -trial) });
  }

  /** Carries out a command; resolves with whether it was the last. */
  async take(command: AccessorCommand): Promise<boolean> {
    if (command.kind === 'interrupt' || command.kind === 'stop') this.#interrupted = true;
    if (command.kind === 'interrupt') return false;
    const turn = this.#last.then(() => this.#execute(command));
    this.#last = turn;
    await turn;
    return command.kind === 'stop';
  }

  async #execute(command: Exclude<AccessorCommand, { kind: 'interrupt' }>): Promise<void> {
    if (command.kind === 'stop') return this.#touch.close();
    const { id } = command;
    try {
      if (command.kind === 'access')
        this.#send({ kind: 'accessed', id, result: this.#access(command.access) });
      else if (command.kind === 'discard')
        this.#send({ kind: 'discarded', id, errno: this.#discard(command.pages) });
      else this.#send({ kind: 'walked', id, report: await this.#walk(command.walk) });
    } catch (error) {
      this.#send({ kind: 'failed', id, message: String(error) });
    }
  }

  #access({ page, offset, length, bytes }: AccessMessage): AccessResult {
    const address = Number(this.#layout.hvaOf(page)) + offset;
    const { block } = this.#touch;
    if (bytes) block.bytes.set(bytes);
    const done = bytes ? this.#touch.write(address, bytes.length) : this.#touch.read(address, length);
    if (done < 0) return { ok: false, errno: -done };
    // An access lies in one page: a partial one has failed.
    if (done !== (bytes?.length ?? length)) return { ok: false, errno: ERRNO.EIO };
    return { ok: true, bytes: bytes ? new Uint8Array(0) : block.bytes.slice(0, length) };
  }

  #discard({ first, count }: PageRange): number {
    const { pageSize } = this.#layout.regionOf(first);
    return -raw.madvise(Number(this.#layout.hvaOf(first)), count * pageSize, MADV.DONTNEED);
  }

  async #walk(walk: Walk): Promise<WalkReport> {
    this.#interrupted = false;
    const tally = new WalkTally();
    let sliceEnd_ms = performance.now() + SLICE_MS;
    for (const page of pagesOf(walk)) {
      this.#visit(page, tally);
      if (tally.accesses % SLICE_PAGES > 0 && performance.now() < sliceEnd_ms) continue;
      await setImmediate();
      sliceEnd_ms = performance.now() + SLICE_MS;
      if (this.#interrupted) return tally.report(true);
    }
    return tally.report(false);
  }

  #visit(page: number, tally: WalkTally): void {
    const { pageSize } = this.#layout.regionOf(page);
    const before = performance.now();
    const done = this.#touch.visit(Number(this.#layout.hvaOf(page)), pageSize);
    const took_ms = performance.now() - before;
    if (done === pageSize) tally.saw(page, this.#touch.block.bytes.subarray(0, pageSize), took_ms);
    else tally.failed(page, done < 0 ? -done : 0, took_ms);
  }
}
