import { failureText } from '../conformance/index.js';
import { type CaseResult, type CaseSeen, type Got, type WaiterGot } from './scenario.js';

/** After "the access". */
const GOT: Readonly<Record<Got, string>> = {
  right: 'waits and gets the contents',
  zeros: 'reads zeros, without an error',
  stale: 'gets stale contents, without an error',
  errno: 'fails with EFAULT; no page is named',
  abort: 'is an abort in the guest',
  waits: 'waits for ever',
};

const WAITER_GOT: Readonly<Record<WaiterGot, string>> = {
  ...GOT,
  right: 'is served',
  exited: 'is out of KVM_RUN, in the hands of the VMM',
};

const EHWPOISON = 133;
const PAGES_A_GIB = 262_144;

type Texts = {
  readonly [Kind in CaseSeen['kind']]: (
    seen: Extract<CaseSeen, { kind: Kind }>,
    figures: CaseResult['figures'],
  ) => string;
};

const TEXTS: Texts = {
  'discard-hangs': () => 'the thread that gives the page back waits for ever',
  'earlier-access-hangs': () => 'the access that was there before waits for ever',
  'discarded-reads-zeros': () => 'the page reads as zeros; nothing brings its old contents back',
  'reuse-hangs': () => 'the guest waits for ever for a page it gave back',
  'reuse-fails': () => 'the guest cannot use the page again',
  'old-contents': () => 'the old contents come back into a page that the guest gave away',
  'other-contents': () => 'the page holds something else',
  'one-fetch': (_, { fetchedPages }) => `all are served by ${fetchedPages} fetch of the page`,
  'one-queue': (_, figures) =>
    `all wait in one queue: such a one was measured at ${figures['publishedKiloPagesPerSecondOf256']} k pages/s, where one vCPU has ${figures['publishedKiloPagesPerSecondOf1']} k; several descriptors, or bringing neighbours along, help`,
  exits: (_, figures) =>
    `each vCPU is out with its own fault: exits were measured at ${figures['publishedKiloPagesPerSecondOf256']} k pages/s, where one vCPU has ${figures['publishedKiloPagesPerSecondOf1']} k`,
  'own-queues': () => 'each vCPU has a queue of its own; its rate was never published',
  'no-freeze': () => 'a present page cannot be stopped without losing its contents',
  'frozen-write-passes': () => 'a write goes through while the last state is taken',
  'frozen-write-fails': () => 'a write fails with EFAULT, and its maker must know what to do',
  'frozen-write-resumes': () => 'a write waits, and goes on once it is thawed, with nothing lost',
  'served-after-wake': () =>
    'the faults that the first had read are not delivered again: all is served once the second has woken every waiter',
  'small-page': (_, { waitsForBytes }) => `the access waits for ${waitsForBytes} bytes`,
  'whole-page': () =>
    `the unit is the backing page: the first access waits for 1 GiB, ${PAGES_A_GIB} times as much`,
  'never-split': () => 'it was never split: pages come and are mapped whole',
  collapsed: () => 'with its last page present the block is mapped as one',
  'collapses-at-end': () => 'mappings stay at 4 KiB until the VMM ends demand paging of the whole slot',
  'stays-small': () => 'mappings stay at 4 KiB',
  'ioctl-hangs': () => 'the ioctl never returns',
  'ioctl-waits': (_, { missedPages }) =>
    `each of the ${missedPages} missing pages is waited for, and the ioctl returns 0`,
  'ioctl-incomplete': (_, { lpis, lpisWanted }) =>
    `the ioctl returns 0 with ${lpis} of ${lpisWanted} LPIs: tables read as zeros, without an error`,
  planned: (_, { plannedPages, rounds }) =>
    `planned in ${rounds} rounds, ${plannedPages} pages held; the ioctl meets no missing page and returns 0`,
  'fails-as-missing': () => 'the access fails with EFAULT, as any missing page does',
  'aborts-as-missing': () => 'the guest sees an abort for every missing page',
  'poison-reads-zeros': () => 'the access reads zeros, without an error',
  'vcpu-out': () => 'the vCPU is out with the address: the VMM injects the machine check itself',
  'poison-waits': () => 'the access waits for ever: the VMM has no verb to end its wait',
  access: ({ got }) => `the access ${GOT[got]}`,
  'vcpu-access': ({ got }) => `a vCPU ${GOT[got]}`,
  'thawed-write': ({ got }) => `thawed, a write is ${got}`,
  waiters: ({ guest, kvm }) => `the guest ${WAITER_GOT[guest]}; KVM ${WAITER_GOT[kvm]}`,
  'ioctl-loses-pending': ({ table }, { pendingLost, pendingWanted }) =>
    `EFAULT${atTable(table)}; tried again after each page it returns 0, and ${pendingLost} of ${pendingWanted} pending interrupts ${pendingLost === 1 ? 'is' : 'are'} lost`,
  'ioctl-fails': ({ errno, table }) => `the ioctl fails with ${errno}${atTable(table)}`,
  'planned-in-vain': ({ status }, { missedPages }) =>
    `planned, and yet the ioctl returns ${status} after ${missedPages} missing pages`,
  'poison-met': ({ errno }) =>
    errno === EHWPOISON
      ? 'the access meets poison, as on the source'
      : 'the access fails with EFAULT, as on poison',
  ring: ({ read, write, kept }) => `a read ${GOT[read]}; ${keptText(write, kept)}`,
  process: ({ failure }) => failureText(failure),
};

const atTable = (table: string | undefined): string => (table === undefined ? '' : ` at the ${table}`);

function keptText(write: Got, kept: Extract<CaseSeen, { kind: 'ring' }>['kept']): string {
  if (kept === 'both') return 'what it writes is kept';
  if (write !== 'right') return `a write ${GOT[write]}`;
  return kept === 'entry'
    ? 'its write makes a page of zeros that the contents never replace'
    : 'its write is overwritten when the page arrives';
}

/** What was seen in a case, in one sentence. */
export const caseText = ({ seen, figures }: Pick<CaseResult, 'seen' | 'figures'>): string =>
  (TEXTS[seen.kind] as (seen: CaseSeen, figures: CaseResult['figures']) => string)(seen, figures);
