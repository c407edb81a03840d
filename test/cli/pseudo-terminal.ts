import { type ChildProcess } from 'node:child_process';
import { constants, openSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { closeDescriptor, libc, NativeBlock } from '../../src/linux/index.js';

// asm-generic/ioctls.h, equal on x86-64 and arm64.
const TIOCSWINSZ = 0x5414;
const TIOCGPTN = 0x8004_5430;
const TIOCSPTLCK = 0x4004_5431;

const ROWS = 24;

/** A terminal whose keyboard and screen are the test's. */
export class PseudoTerminal implements Disposable {
  /** What a program opens to have it. */
  readonly path: string;
  /** Resolves when all that was written has been read and no process has the terminal open any more. */
  readonly closed: Promise<void>;
  readonly #master: ReadStream;
  /** Keeps the terminal while no program has it open yet. */
  #kept: number | undefined;
  #written = '';
  #look: () => void = () => {};

  constructor(readonly columns: number) {
    const master = openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY);
    using word = new NativeBlock(8);
    const call = (request: number): void => {
      if (libc().ioctl(master, request, word.address) === -1) throw new Error(`errno ${libc().errno()}`);
    };
    call(TIOCSPTLCK); // the word is 0: unlock
    call(TIOCGPTN);
    this.path = `/dev/pts/${word.words[0]!}`;
    word.words[0] = ROWS | (columns << 16);
    call(TIOCSWINSZ);
    this.#kept = openSync(this.path, constants.O_RDWR | constants.O_NOCTTY);
    this.#master = new ReadStream(master);
    this.#master.setEncoding('utf8').on('data', (text: string) => {
      this.#written += text;
      this.#look();
    });
    // EIO is how a terminal tells that its other side is gone.
    this.#master.on('error', () => this.#master.destroy());
    this.closed = new Promise((resolve) => this.#master.once('close', resolve));
  }

  /** All that was written, as it was written. */
  get written(): string {
    return this.#written;
  }

  /** From when `child` has ended nothing holds the terminal any more but what it has left. */
  endsWith(child: ChildProcess): void {
    child.once('exit', () => this.#letGo());
  }

  /** Resolves when what was written shows `pattern`; rejects when the terminal is closed before. */
  async shows(pattern: RegExp): Promise<void> {
    const seen = new Promise<true>((resolve) => {
      this.#look = () => pattern.test(this.#written) && resolve(true);
      this.#look();
    });
    if ((await Promise.race([seen, this.closed])) !== true)
      throw new Error(`${String(pattern)} was not written: ${JSON.stringify(this.#written)}`);
  }

  /** Types: `\x03` is Ctrl-C, `\x1c` Ctrl-\. */
  type(keys: string): void {
    this.#master.write(keys);
  }

  /** Takes the terminal away, as a closed window does: its programs get SIGHUP. */
  [Symbol.dispose](): void {
    this.#letGo();
    this.#master.destroy();
  }

  #letGo(): void {
    if (this.#kept !== undefined) closeDescriptor(this.#kept);
    this.#kept = undefined;
  }
}

/** Escape sequences: those that set something, and those that move the cursor. */

const ESCAPE = /\x1b(?:\[[0-?]*[ -/]*([@-~])|[@-Z\\-_])/g;
const MOVES = 'ABCDEFGHfJKST';

/** What was written, in lines without escape sequences: what stands behind a move of the cursor is a line of its own. */
export const linesOn = (written: string): string[] =>
  written
    .replace(ESCAPE, (_sequence, final: string | undefined) => (final && MOVES.includes(final) ? '\n' : ''))
    .split(/[\r\n]+/);
