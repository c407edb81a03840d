/** Runs of bytes in ascending order, those that overlap or touch joined; empty ones are left out. */
export function joinedRuns(
  runs: readonly { readonly start: number; readonly length: number }[],
): readonly { readonly start: number; readonly length: number }[] {
  const joined: { start: number; length: number }[] = [];
  for (const { start, length } of [...runs].sort((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (length === 0) continue;
    if (!last || last.start + last.length < start) joined.push({ start, length });
    else last.length = Math.max(last.length, start + length - last.start);
  }
  return joined;
}
