import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cellName } from './cell.js';
import { type Judgement } from './judgement.js';

/** Which failures on a real kernel have no C program, and why; one line each. */
export const withoutReproducer = ({ cells }: Judgement): readonly string[] =>
  cells.flatMap((cell) =>
    cell.reproducer && 'why' in cell.reproducer
      ? [`no C program of ${cellName(cell)}: ${cell.reproducer.why}`]
      : [],
  );

/** Writes the C programs of a judgement's failures into a folder; where they are. */
export function writeReproducers({ candidate, facts, cells }: Judgement, folder: string): readonly string[] {
  return cells.flatMap((cell) => {
    if (!cell.reproducer || !('program' in cell.reproducer)) return [];
    mkdirSync(folder, { recursive: true });
    const name = `${facts?.name ?? candidate}-${cellName(cell)}`.replaceAll(/[^a-z0-9]+/gi, '-');
    const path = join(folder, `${name}.c`);
    writeFileSync(path, cell.reproducer.program);
    return [path];
  });
}
