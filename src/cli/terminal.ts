import { type WriteStream } from 'node:tty';
import { createLogUpdate } from 'log-update';
import { paragraph } from './paragraph.js';

/** Where a command writes: results to `out`, what goes on meanwhile and what went wrong to `err`. */
export interface Terminal {
  /** Columns to stay inside. */
  readonly columns: number;
  /** Whether a person reads it. What goes into a file or a pipe may have longer lines, where they belong together. */
  readonly isScreen: boolean;
  /** Writes a line; on a screen that it does not fit on, in several. */
  out(line: string): void;
  /** Writes what a program is to read, as it is. */
  document(text: string): void;
  err(line: string): void;
  /** A part of the screen that changes in place; undefined where there is no screen. */
  live(): LiveArea | undefined;
}

export interface LiveArea {
  show(text: string): void;
  /** Takes the area away. */
  end(): void;
}

const MOST_COLUMNS = 100;
/** Of what is no terminal, and of one that does not know its size, which says 0. */
const USUAL_COLUMNS = 80;

/** The terminal of this process. `quiet` drops what is written with `out`. */
export function processTerminal({ quiet = false } = {}): Terminal {
  const { stdout, stderr } = process;
  return {
    columns: Math.min(stdout.columns || USUAL_COLUMNS, MOST_COLUMNS),
    isScreen: stdout.isTTY === true,
    out: (line) => void (quiet || writeLine(stdout, line)),
    document: (text) => void stdout.write(`${text}\n`),
    err: (line) => writeLine(stderr, line),
    live() {
      // Of what changes in place, a terminal of no rows shows none.
      if (quiet || !stdout.isTTY || !stdout.rows || process.env['TERM'] === 'dumb') return undefined;
      const area = createLogUpdate(stdout);
      return {
        show: (text) => area(text),
        end() {
          area.clear();
          area.done(); // gives the cursor back
        },
      };
    },
  };
}

/** One line for what reads it, lines that fit for a person. */
function writeLine(stream: Pick<WriteStream, 'isTTY' | 'columns' | 'write'>, line: string): void {
  const margin = line.length - line.trimStart().length;
  const lines = stream.isTTY ? paragraph(line, stream.columns || USUAL_COLUMNS, margin + 2) : [line];
  stream.write(`${lines.join('\n')}\n`);
}
