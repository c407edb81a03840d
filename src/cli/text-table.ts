import Table from 'cli-table3';

export type Cell = string | number;

export interface TextTableOptions {
  readonly head?: readonly string[];
  /** Columns that hold figures: aligned to the right. */
  readonly figures?: readonly number[];
  /** Spaces before each line. Default 2. */
  readonly indent?: number;
}

const BARE = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

/** A table without rules: columns two spaces apart, no colours, no spaces at the end of a line. */
export function textTable(rows: readonly (readonly Cell[])[], options: TextTableOptions = {}): string[] {
  const { head, figures = [], indent = 2 } = options;
  const width = Math.max(...rows.map((row) => row.length), head?.length ?? 0);
  const table = new Table({
    chars: BARE,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
    colAligns: Array.from({ length: width }, (_, column) => (figures.includes(column) ? 'right' : 'left')),
  });
  if (head) table.push([...head]);
  for (const row of rows) table.push(row.map(String));
  const margin = ' '.repeat(indent);
  return table
    .toString()
    .split('\n')
    .map((line) => (margin + line).trimEnd())
    .filter((line) => line !== '');
}

/**
 * As {@link textTable}, in as many tables one below the other as it takes to stay inside `columns`: each with the first
 * column, and as many of the others as fit.
 */
export function textTablesWithin(
  columns: number,
  rows: readonly (readonly Cell[])[],
  options: TextTableOptions & { readonly head: readonly string[] },
): string[][] {
  const { head, ...others } = options;
  const of = (from: number, to: number): string[] => {
    const part = <T>(row: readonly T[]): T[] => [row[0]!, ...row.slice(from, to)];
    return textTable(rows.map(part), { ...others, head: part(head) });
  };
  const fits = (lines: readonly string[]): boolean => lines.every((line) => line.length <= columns);
  const tables: string[][] = [];
  for (let from = 1; from < head.length;) {
    let to = from + 1;
    while (to < head.length && fits(of(from, to + 1))) to++;
    tables.push(of(from, to));
    from = to;
  }
  return tables;
}
