import { type AccessSite } from '../../api/index.js';
import { titleOf, type AnyProperty, type Failure, PROPERTIES } from '../../conformance/index.js';
import {
  balloonInPostCopy,
  broughtBeforeWaiting,
  lateMissing,
  tornWhileBrought,
  zeroWhileBrought,
} from '../../prototypes/index.js';
import { type CaseOutcome, type CaseResult, type WaiterGot } from '../../scenarios/index.js';
import { type CellResult } from './cell.js';

/** Facts that a failure must have. */
export type FailureFacts = Partial<Record<string, string>> & { readonly kind: Failure['kind'] };

/** What in the matrix shows a hazard. */
export type Shown =
  /** Nothing intercepts accesses of the site. */
  | { readonly by: 'site'; readonly site: AccessSite }
  /** The property fails somewhere with these facts; not where `unless` fails, which is worse and comes before. */
  | {
      readonly by: 'property';
      readonly property: string;
      readonly failure: FailureFacts;
      readonly unless?: readonly string[];
    }
  /** A case of the scenario comes out so, or the guest or KVM gets this. */
  | {
      readonly by: 'scenario';
      readonly scenario: string;
      readonly case: string;
      readonly seen: readonly CaseOutcome[] | WaiterGot;
    };

/** Whether a result shows a hazard. */
export function shows(shown: Shown, result: CellResult | CaseResult): boolean {
  if (shown.by === 'property') {
    if (result.outcome !== 'fails' || !('failure' in result)) return false;
    const facts: Readonly<Record<string, unknown>> = { ...result.failure };
    return Object.entries(shown.failure).every(([name, value]) => facts[name] === value);
  }
  if (shown.by === 'site') return result.outcome === 'unmediated';
  if (!('case' in result)) return false;
  if (typeof shown.seen !== 'string') return shown.seen.includes(result.outcome);
  return result.seen.kind === 'waiters' && [result.seen.guest, result.seen.kvm].includes(shown.seen);
}

/** Something that the thread fears of a UAPI. */
export interface ThreadHazard {
  /** Kebab-case. */
  readonly name: string;
  readonly title: string;
  /** Who named it, in a few words. */
  readonly said: string;
  readonly shown: Shown;
}

const suite = (name: AnyProperty['name']): string =>
  titleOf(PROPERTIES.find((property) => property.name === name && property.part === undefined)!);

const site = (name: string, title: string, said: string, where: AccessSite): ThreadHazard => ({
  name,
  title,
  said,
  shown: { by: 'site', site: where },
});

const scenario = (
  name: string,
  title: string,
  said: string,
  [which, of, seen]: readonly [string, string, readonly CaseOutcome[] | WaiterGot],
): ThreadHazard => ({ name, title, said, shown: { by: 'scenario', scenario: which, case: of, seen } });

const SEED = 'Oliver Upton, 7 Nov 2023';
const XU = 'Peter Xu, Nov 2023';
const BONZINI = 'Paolo Bonzini, Nov 2023';
const MATLACK = 'David Matlack, Nov 2023';
const HOUGHTON = 'James Houghton, KVM Userfault v3';

/** Each hazard that the thread and the series after it name, and what shows it. */
export const THREAD_HAZARDS: readonly ThreadHazard[] = [
  site(
    'kvm-reads-zeros',
    'KVM reads GIC and ITS tables that have not come, and gets zeros',
    SEED,
    'kernel-copy',
  ),
  scenario('its-restore-silent', 'RESTORE_TABLES returns 0 with interrupts missing', SEED, [
    'its-restore',
    'during-post-copy',
    ['silent'],
  ]),
  scenario(
    'its-restore-fails',
    'RESTORE_TABLES fails, names no page, and has consumed pending bits when it is tried again',
    'the first version of Mar 2024: non-vCPU accesses get an error',
    ['its-restore', 'during-post-copy', ['fails']],
  ),
  site(
    'kvm-maps-for-itself',
    'a page that KVM maps for itself (kvm_vcpu_map, pfn caches) opts out',
    'Anish Moorthy, exit on missing v7',
    'kernel-cached-pfn',
  ),
  site('vhost-bypasses', 'vhost bypasses the APIs of KVM', XU, 'external-vhost'),
  site('vmm-bypasses', "the VMM's own accesses are not covered", BONZINI, 'vmm-load'),
  site(
    'second-view',
    'a second mapping of the memory bypasses presence',
    'where it converged, 13 Nov 2023',
    'external-mapping',
  ),
  {
    name: 'published-early',
    title: 'a page that counts as present before its contents are there reads as zeros',
    said: `${HOUGHTON}: store-release after the contents`,
    shown: { by: 'property', property: titleOf(zeroWhileBrought), failure: { kind: 'zeros-read' } },
  },
  {
    name: 'half-a-page',
    title: 'half a page is seen while it is written',
    said: `${HOUGHTON}: store-release after the contents`,
    shown: { by: 'property', property: titleOf(tornWhileBrought), failure: { kind: 'torn-page' } },
  },
  {
    name: 'late-set-ignored',
    title: 'a page marked missing late goes on being used until the flag is toggled',
    said: HOUGHTON,
    shown: {
      by: 'property',
      property: titleOf(lateMissing),
      failure: { kind: 'not-stopped' },
    },
  },
  {
    name: 'unreadable-bitmap',
    title: 'a bitmap that KVM cannot read is a bare EFAULT that names no page',
    said: HOUGHTON,
    shown: {
      by: 'property',
      property: suite('coverage-is-true'),
      failure: { kind: 'wrong-effect', declared: 'exits', seen: 'errors' },
    },
  },
  {
    name: 'exist-wakes-no-waiter',
    title: 'EEXIST wakes no waiter: the accessor of a page that came another way sleeps on',
    said: `${HOUGHTON}, beside a userfaultfd`,
    shown: {
      by: 'property',
      property: suite('duplicate-wakes'),
      failure: { kind: 'stuck' },
      unless: [titleOf(broughtBeforeWaiting), suite('coverage-is-true')],
    },
  },
  {
    name: 'ready-overtakes-accept',
    title: 'a ready that overtakes the accepting of its token is lost',
    said: 'Nikita Kalyazin, asynchronous page faults',
    shown: { by: 'property', property: titleOf(broughtBeforeWaiting), failure: { kind: 'stuck' } },
  },
  {
    name: 'balloon-unannounced',
    title: 'a page given back by a balloon before it came is filled from the source again',
    said: 'EAGAIN and EVENT_REMOVE of userfaultfd, which a bitmap has nothing of',
    shown: {
      by: 'property',
      property: titleOf(balloonInPostCopy),
      failure: { kind: 'stale-contents' },
      unless: [titleOf(broughtBeforeWaiting)],
    },
  },
  scenario('one-queue', 'hundreds of vCPUs wait in one queue', MATLACK, [
    'many-vcpus',
    'pages-of-their-own',
    ['slow'],
  ]),
  scenario('huge-granule', 'a 1 GiB page comes whole: the first access waits for all of it', MATLACK, [
    'huge-page',
    'guest',
    ['cannot'],
  ]),
  scenario(
    'stays-small',
    'mappings stay small until demand paging of the whole slot ends',
    `${MATLACK}, (e)`,
    ['huge-page', 'collapse', ['needs-vmm', 'cannot']],
  ),
  scenario(
    'no-freeze',
    'a present page cannot be frozen without losing its contents',
    'Sean Christopherson, Nov 2023',
    ['freeze', 'guest', ['cannot', 'silent', 'hangs']],
  ),
  scenario('freeze-passes-kvm', "KVM's own writes go through a freeze", 'Sean Christopherson, Nov 2023', [
    'freeze',
    'kvm-itself',
    ['silent'],
  ]),
  scenario(
    'handler-death-zeros',
    'the handler dies, and missing pages read as zeros',
    `${BONZINI}, multi-process VMMs`,
    ['handler-process', 'dies-with-descriptor', 'zeros'],
  ),
  scenario(
    'handler-death-hangs',
    'the handler dies, and waiters wait for ever',
    `${BONZINI}, multi-process VMMs`,
    ['handler-process', 'dies-with-descriptor', 'waits'],
  ),
  scenario('poison-passes', "a poisoned page reads as zeros to the VMM's system calls", MATLACK, [
    'poison',
    'syscall',
    ['silent'],
  ]),
];
