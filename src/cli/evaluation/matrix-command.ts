import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CommandContext } from '../context.js';
import { EXIT } from '../failure.js';
import { paragraph } from '../paragraph.js';
import { duration } from '../quantity.js';
import { type Terminal } from '../terminal.js';
import { textTable } from '../text-table.js';
import { countsOf } from './evaluation-text.js';
import { writeReproducers } from './reproducer-files.js';
import { makeMatrix, type MatrixDocument, type MatrixProgress } from './matrix.js';

export interface MatrixCommandOptions {
  readonly runs: number;
  readonly liveRuns: number;
  readonly seed: number;
  readonly modules: readonly string[];
  /** Where the page and its data go. */
  readonly out: string;
  readonly json: boolean;
}

/** Evaluates all targets, writes the page and its data, and says the counts. What fails is a result like any other. */
export async function matrixCommand(
  options: MatrixCommandOptions,
  { terminal, exit }: CommandContext,
): Promise<void> {
  mkdirSync(options.out, { recursive: true }); // where it cannot write is said before minutes are spent
  const progress = new MatrixProgressView(terminal);
  const document = await makeMatrix({ ...options, hear: (now) => progress.show(now) });
  progress.end();
  const page = join(options.out, 'matrix.html');
  const { matrixPage } = await import('./page/matrix-page.js');
  writeFileSync(page, matrixPage(document));
  const data = join(options.out, 'matrix.json');
  writeFileSync(data, JSON.stringify(document));
  const programs = document.rows.flatMap((row) => writeReproducers(row, options.out));
  if (options.json) terminal.document(JSON.stringify(document));
  else for (const line of summary(document, terminal.columns, [page, data, ...programs])) terminal.out(line);
  exit(EXIT.ok);
}

const BAR = 24;

/** What is being evaluated, in place where there is a screen; else a line for each that is done. */
class MatrixProgressView {
  readonly #terminal: Terminal;
  readonly #live: ReturnType<Terminal['live']>;
  #said = 0;
  readonly #started = performance.now();

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    this.#live = terminal.live();
  }

  show({ underWay, done, of }: MatrixProgress): void {
    const time = duration(performance.now() - this.#started);
    if (this.#live) {
      const bars = [...underWay].map(([name, part]) => {
        const filled = Math.floor(part * BAR);
        return `  ${'█'.repeat(filled)}${'░'.repeat(BAR - filled)}  ${name}`;
      });
      return this.#live.show([`${done} of ${of} evaluated, ${time}`, ...bars].join('\n'));
    }
    if (done === this.#said) return;
    this.#said = done;
    this.#terminal.err(`${done} of ${of} evaluated, ${time}`);
  }

  end(): void {
    this.#live?.end();
  }
}

function summary(document: MatrixDocument, columns: number, files: readonly string[]): string[] {
  const rows = document.rows.map((row) => {
    const counts = countsOf(row.cells);
    const why = row.unavailable ?? row.refused?.message;
    return why === undefined
      ? [row.target, counts.holds, counts.fails, counts.unmediated, counts['not-applicable'] + counts.skipped]
      : [row.target, '-', '-', '-', why.split('\n')[0]!];
  });
  return [
    ...textTable(rows, {
      head: ['', 'holds', 'fails', 'unmediated', 'not applicable'],
      figures: [1, 2, 3],
      indent: 0,
    }),
    '',
    ...document.hazards.flatMap(({ title, has }) =>
      paragraph(
        `${title}: ${has.map(({ target }) => target).join(', ') || `no target, in ${document.options.runs} runs`}`,
        columns,
        2,
      ),
    ),
    '',
    `evaluated in ${duration(document.elapsed_ms)}; written: ${files.join(', ')}`,
  ];
}
