import { type AccessSite } from '../../api/index.js';
import { titleOf, type AnyProperty, PROPERTIES } from '../../conformance/index.js';
import {
  balloonInPostCopy,
  broughtBeforeWaiting,
  lateMissing,
  tornWhileBrought,
  zeroWhileBrought,
} from '../../prototypes/index.js';
import { type Grade } from '../../scenarios/index.js';

/** What in the matrix shows a hazard. */
export type Shown =
  /** Nobody stands at the site. */
  | { readonly by: 'site'; readonly site: AccessSite }
  /** The property fails somewhere, saying this; not where `unless` fails, which is worse and comes before. */
  | {
      readonly by: 'property';
      readonly property: string;
      readonly says: RegExp;
      readonly unless?: readonly string[];
    }
  /** A case of the scenario comes out so, or says this. */
  | {
      readonly by: 'scenario';
      readonly scenario: string;
      readonly case: string;
      readonly seen: readonly Grade[] | RegExp;
    };

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
  [which, of, seen]: readonly [string, string, readonly Grade[] | RegExp],
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
    shown: { by: 'property', property: titleOf(zeroWhileBrought), says: /read zeros while it was brought/ },
  },
  {
    name: 'half-a-page',
    title: 'half a page is seen while it is written',
    said: `${HOUGHTON}: store-release after the contents`,
    shown: { by: 'property', property: titleOf(tornWhileBrought), says: /saw .*words of/ },
  },
  {
    name: 'late-set-ignored',
    title: 'a page marked missing late goes on being used until the flag is toggled',
    said: HOUGHTON,
    shown: {
      by: 'property',
      property: titleOf(lateMissing),
      says: /went on though the page was marked missing/,
    },
  },
  {
    name: 'unreadable-bitmap',
    title: 'a bitmap that KVM cannot read is a bare EFAULT that names no page',
    said: HOUGHTON,
    shown: {
      by: 'property',
      property: suite('coverage-is-true'),
      says: /declared 'exits', and a missing page there: errors/,
    },
  },
  {
    name: 'exist-wakes-nobody',
    title: 'EEXIST wakes nobody: the waiter of a page that came another way sleeps on',
    said: `${HOUGHTON}, beside a userfaultfd`,
    shown: {
      by: 'property',
      property: suite('duplicate-wakes'),
      says: /nothing goes on any more/,
      unless: [titleOf(broughtBeforeWaiting), suite('coverage-is-true')],
    },
  },
  {
    name: 'ready-overtakes-accept',
    title: 'a ready that overtakes the accepting of its token is lost',
    said: 'Nikita Kalyazin, asynchronous page faults',
    shown: { by: 'property', property: titleOf(broughtBeforeWaiting), says: /nothing goes on any more/ },
  },
  {
    name: 'balloon-unannounced',
    title: 'a page given back by a balloon before it came is filled from the source again',
    said: 'EAGAIN and EVENT_REMOVE of userfaultfd, which a bitmap has nothing of',
    shown: {
      by: 'property',
      property: titleOf(balloonInPostCopy),
      says: /given back before, read/,
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
    ['handler-process', 'dies-with-descriptor', /reads zeros/],
  ),
  scenario(
    'handler-death-hangs',
    'the handler dies, and who waits waits for ever',
    `${BONZINI}, multi-process VMMs`,
    ['handler-process', 'dies-with-descriptor', /waits for ever/],
  ),
  scenario('poison-passes', "a poisoned page reads as zeros to the VMM's system calls", MATLACK, [
    'poison',
    'syscall',
    ['silent'],
  ]),
];
