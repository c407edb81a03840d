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
