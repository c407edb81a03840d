import { type Requirements, requirements } from '../../api/index.js';
import { type Subject } from '../../conformance/index.js';
import {
  asyncPf,
  exitOnMissing,
  kvmUserfault,
  presentBitmap,
  type Uapi,
  type UapiUse,
} from '../../prototypes/index.js';
import { inUse, type UapiInUse, UAPIS } from '../../scenarios/index.js';
import { LIVE } from '../conformance-subjects.js';

/**
 * What a target is. `live`: a backend on this host's kernel. `model`: the model of what is real. `proposal`: one as
 * its author means it to be used. `mistake`: one used wrongly, or without what it needs. `module`: a user's own.
 */
export type TargetGroup = 'live' | 'model' | 'proposal' | 'mistake' | 'module';

/** Something that can be evaluated, by name. */
export interface Target {
  readonly name: string;
  /** In a few words. */
  readonly title: string;
  readonly group: TargetGroup;
  /** What became of it, or what it is of. */
  readonly status: string;
  /** What this host lacks for it. */
  probe(): Requirements;
  subject(): Subject;
  /** What it is a prototype of: for the scenarios, and what an RFC prints. */
  readonly uapi?: UapiInUse;
}

/** A prototype, put to use in one way. */
export function prototypeTarget(uapi: UapiInUse, group: TargetGroup): Target {
  // A model is not mistaken for what is live.
  const name = group === 'model' ? `model-${uapi.name}` : uapi.name;
  return {
    name,
    title: uapi.title,
    group,
    status: uapi.status,
    probe: () => requirements([]),
    subject: () => ({ ...uapi.subject(), name }),
    uapi,
  };
}

const PROTOTYPES: readonly Target[] = UAPIS.map((uapi) =>
  prototypeTarget(uapi, uapi.status === 'in Linux' ? 'model' : 'proposal'),
);

const beside = { userfaultfd: true } as const;

function mistake<Options extends object>(
  uapi: Uapi<Options>,
  use: UapiUse<Options>,
  name: string,
  title: string,
): Target {
  return prototypeTarget(inUse(uapi, use, { name, title }), 'mistake');
}

/** What a proposal invites, or leaves to its user: each has one hazard that the thread names. */
const MISTAKES: readonly Target[] = [
  mistake(
    presentBitmap,
    { kernelAccess: 'none' },
    'present-bitmap-vcpu-only',
    'present bitmap, a first version with vCPU exits only',
  ),
  mistake(
    presentBitmap,
    { publish: 'before' },
    'present-bitmap-bit-first',
    'present bitmap, the bit set before the contents',
  ),
  mistake(exitOnMissing, {}, 'exit-on-missing', 'exit on missing without a userfaultfd'),
  mistake(
    kvmUserfault,
    { publish: 'before' },
    'kvm-userfault-bit-first',
    'KVM Userfault, the bit cleared before the contents',
  ),
  mistake(
    kvmUserfault,
    { lateSet: 'nothing' },
    'kvm-userfault-not-toggled',
    'KVM Userfault, bits set late and the flag not toggled',
  ),
  mistake(
    kvmUserfault,
    { bitmap: 'unreadable' },
    'kvm-userfault-unreadable',
    'KVM Userfault, a bitmap that KVM cannot read',
  ),
  mistake(
    kvmUserfault,
    { ...beside, wakesOnExist: false },
    'kvm-userfault+uffd-no-wake',
    'KVM Userfault beside a userfaultfd, no waiter woken on EEXIST',
  ),
  mistake(
    asyncPf,
    { earlyReady: 'dropped' },
    'async-pf-early-ready',
    'asynchronous page faults, a ready before its accept dropped',
  ),
];

/** Everything that can be evaluated by name, what is real first. */
export const TARGETS: readonly Target[] = [...LIVE, ...PROTOTYPES, ...MISTAKES];
