import { type Statistics } from '../api/index.js';
import { count, duration, percent } from './quantity.js';
import { type RestorePhase } from './restore-job.js';

export interface ProgressView {
  readonly phase: RestorePhase;
  readonly statistics: Statistics;
  readonly elapsed_ms: number;
}

/** Two lines: a bar of what is there, and how it came. */
export function liveText(view: ProgressView, columns: number): string {
  const { presentPages, pages } = view.statistics;
  const figures = ` ${percent(presentPages, pages).padStart(7)}  ${duration(view.elapsed_ms)}`;
  const width = Math.max(10, Math.min(60, columns - figures.length - 2));
  const filled = Math.floor((presentPages / pages) * width);
  return `${'█'.repeat(filled)}${'░'.repeat(width - filled)}${figures}\n${plainText(view)}`;
}

/** One line, for output that only grows. */
export function plainText({ phase, statistics }: ProgressView): string {
  const { presentPages, pages, demandPages, aroundPages, prefetchPages } = statistics;
  if (phase === 'checking') return `checking every byte of ${count(pages)} pages`;
  const brought = `${count(demandPages)} on demand, ${count(aroundPages)} around, ${count(prefetchPages)} ahead`;
  return `${count(presentPages)} of ${count(pages)} pages: ${brought}`;
}
