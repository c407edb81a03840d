/** Breaks text at spaces into lines of at most `columns`; the lines after the first begin with `indent` spaces. */
export function paragraph(text: string, columns: number, indent = 0): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    const fits = line === '' || line.length + 1 + word.length <= columns;
    if (fits) line += (line === '' ? '' : ' ') + word;
    else {
      lines.push(line);
      line = ' '.repeat(indent) + word;
    }
  }
  lines.push(line);
  return lines;
}
