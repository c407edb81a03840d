import { type Actor, type PageIndex } from '../api/index.js';
import { eventWords, formatEvents, type Timed, type TraceEvent } from '../conformance/index.js';

/** What happens in a scenario beside its kernel's events. */
type OwnEvent = { readonly actor: Actor; readonly page?: PageIndex | undefined } & (
  | {
      readonly kind:
        | 'backing-page-allocated'
        | 'backing-page-refuses'
        | 'gives-back'
        | 'guest-frozen'
        | 'handler-dies'
        | 'handler-restarts'
        | 'lost-page-poisoned'
        | 'lost-page-unsayable'
        | 'restore-retried'
        | 'source-slow'
        | 'waiters-woken';
    }
  | { readonly kind: 'all-faulted'; readonly vcpus: number; readonly waitInOneQueue: number }
  | { readonly kind: 'frozen-page-compared'; readonly changed: boolean }
  | { readonly kind: 'table-accessed'; readonly table: string; readonly write: boolean }
  | { readonly kind: 'restore-planned'; readonly pages: number; readonly rounds: number }
  | { readonly kind: 'ring-accessed'; readonly write: boolean }
  | { readonly kind: 'ring-compared'; readonly entry: boolean; readonly rest: boolean }
  | { readonly kind: 'pager-stops'; readonly error: string }
);

export type ScenarioEvent = TraceEvent | OwnEvent;

/** `moment`: its number, from 1. */
export type ScenarioEntry = Timed<ScenarioEvent>;

type Words = { readonly [Kind in OwnEvent['kind']]: (event: Extract<OwnEvent, { kind: Kind }>) => string };

const WORDS: Words = {
  'backing-page-allocated': () => 'has allocated the backing page, as zeros',
  'backing-page-refuses': () => 'cannot put contents into a part of the backing page: it is there',
  'gives-back': () => 'gives back',
  'guest-frozen': () => 'has frozen the guest’s memory, and takes its last state',
  'handler-dies': () => 'dies over the faults it has read',
  'handler-restarts': () => 'is started anew, with the descriptor that the VMM has kept',
  'lost-page-poisoned': () => 'poisons',
  'lost-page-unsayable': () => 'has no way to say that it is lost:',
  'restore-retried': () => 'RESTORE_TABLES: EFAULT; it brings, as if it were told which,',
  'source-slow': () => 'is slow with',
  'waiters-woken': () => 'wakes every waiter, so that it faults again',
  'all-faulted': ({ vcpus, waitInOneQueue }) =>
    `have faulted, all ${vcpus}: ${waitInOneQueue} wait in one queue`,
  'frozen-page-compared': ({ changed }) =>
    changed ? 'finds changed, though it was frozen,' : 'finds as it was',
  'table-accessed': ({ table, write }) => `${write ? 'writes' : 'reads'} the ${table},`,
  'restore-planned': ({ pages, rounds }) => `has planned the restore: ${pages} pages held, ${rounds} rounds`,
  'ring-accessed': ({ write }) => (write ? 'writes a used entry to' : 'reads a descriptor from'),
  'ring-compared': ({ entry, rest }) =>
    `finds the entry ${entry ? 'there' : 'gone'}, the rest ${rest ? 'there' : 'zeros'} on`,
  'pager-stops': ({ error }) => `stops: ${error}`,
};

const isOwn = (event: ScenarioEvent): event is OwnEvent => event.kind in WORDS;

/** The trace of a case as lines, one an event. */
export const formatScenarioTrace = (entries: readonly ScenarioEntry[]): string[] =>
  formatEvents(entries, (event: ScenarioEvent) =>
    isOwn(event) ? (WORDS[event.kind] as (event: OwnEvent) => string)(event) : eventWords(event),
  );
