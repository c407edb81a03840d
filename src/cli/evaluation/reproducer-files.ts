import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cellName } from './cell.js';
import { type Evaluation } from './evaluation.js';

/** Which failures on a real kernel have no C program, and why; one line each. */
export const withoutReproducer = ({ cells }: Evaluation): readonly string[] =>
  cells.flatMap((cell) =>
    cell.reproducer && 'why' in cell.reproducer
      ? [`no C program of ${cellName(cell)}: ${cell.reproducer.why}`]
      : [],
  );

/** Writes the C programs of an evaluation's failures into a folder; where they are. */
export function writeReproducers({ target, facts, cells }: Evaluation, folder: string): readonly string[] {
  return cells.flatMap((cell) => {
    if (!cell.reproducer || !('program' in cell.reproducer)) return [];
    mkdirSync(folder, { recursive: true });
    const name = `${facts?.name ?? target}-${cellName(cell)}`.replaceAll(/[^a-z0-9]+/gi, '-');
    const path = join(folder, `${name}.c`);
    writeFileSync(path, cell.reproducer.program);
    return [path];
  });
}
