import { createLogUpdate } from 'log-update';
import { paragraph } from './paragraph.js';

/** Where a command writes: results to `out`, what goes on meanwhile and what went wrong to `err`. */
export interface Terminal {
  /** Columns to stay inside. */
  readonly columns: number;
  out(line: string): void;
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

/** The terminal of this process. `quiet` drops what is written with `out`. */
export function processTerminal({ quiet = false } = {}): Terminal {
  const { stdout, stderr } = process;
  return {
    columns: Math.min(stdout.columns ?? 80, MOST_COLUMNS),
    out: (line) => void (quiet || stdout.write(`${line}\n`)),
    // One line for what reads it, lines that fit for a person.
    err(line) {
      const lines = stderr.isTTY ? paragraph(line, stderr.columns, 2) : [line];
      stderr.write(`${lines.join('\n')}\n`);
    },
    live() {
      if (quiet || !stdout.isTTY || process.env['TERM'] === 'dumb') return undefined;
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
