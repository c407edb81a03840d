import { type FaultBatch, type ResolutionBatch } from '../../../src/api/index.js';

/**
 * Messages in words: faults first, in an order of their own since who of several woken threads comes first is
 * chance, then events. `whoIs`: which accessor a thread is.
 */
export function messages(batch: FaultBatch, whoIs: (thread: number) => string): string {
  const rows = Array.from({ length: batch.count }, (_, row) => row);
  const faults = rows
    .filter((row) => !batch.isEvent(row))
    .map((row) => batch.fault(row))
    .map(({ kind, page, write, thread }) => `${kind} ${page} ${write ? 'write' : 'read'} ${whoIs(thread!)}`);
  const events = rows
    .filter((row) => batch.isEvent(row))
    .map((row) => batch.event(row))
    .map((event) =>
      'pages' in event ? `${event.kind} ${event.pages.first}+${event.pages.count}` : event.kind,
    );
  return [...faults.sort(), ...events].join(', ') || 'nothing';
}

export const answer = (batch: ResolutionBatch): string =>
  `${batch.outcomeOf(0)} ${batch.done[0]} errno ${batch.errno[0]}`;
