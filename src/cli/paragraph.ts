/** Breaks text at spaces into lines of at most `columns`; the lines after the first begin with `indent` spaces. */
export function paragraph(text: string, columns: number, indent = 0): string[] {
  const margin = text.length - text.trimStart().length;
  const [first = '', ...words] = text.slice(margin).split(' ');
  const lines: string[] = [];
  let line = text.slice(0, margin) + first;
  for (const word of words) {
    if (line.length + 1 + word.length <= columns) line += ` ${word}`;
    else {
      lines.push(line.trimEnd());
      line = ' '.repeat(indent) + word;
    }
  }
  return [...lines, line];
}
