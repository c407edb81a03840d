import { type PageIndex, type PageRange } from './address.js';

export const within = (page: PageIndex, { first, count }: PageRange): boolean =>
  page >= first && page < first + count;

/** The pages that two ranges have in common: one range, or none. */
export function intersection(a: PageRange, b: PageRange): readonly PageRange[] {
  const first = Math.max(a.first, b.first);
  const end = Math.min(a.first + a.count, b.first + b.count);
  return end > first ? [{ first, count: end - first }] : [];
}

/** What is left of a range without those pages. */
export const without = (range: PageRange, { first, count }: PageRange): readonly PageRange[] => [
  ...intersection(range, { first: 0, count: first }),
  ...intersection(range, { first: first + count, count: Infinity }),
];
