import { type MemoryKind } from '../api/index.js';
import { type SteppedSubject } from '../conformance/index.js';
import {
  asyncPf,
  exitOnMissing,
  fileUffd,
  kvmUserfault,
  memslotHole,
  presentBitmap,
  type Uapi,
  type UapiBackend,
  type UapiUse,
  userfaultfdModel,
  userfaultfdRwpModel,
  vacatedSlot,
} from '../prototypes/index.js';

/** A UAPI as scenarios and the evaluate take it: a prototype, put to use in one way. */
export interface UapiInUse {
  /** Kebab-case; `+uffd` where a userfaultfd stands beside it. */
  readonly name: string;
  /** In a few words, for people. */
  readonly title: string;
  /** What is real (`in Linux`), or what became of the proposal. */
  readonly status: string;
  /** The memory it is run on, where the scenario leaves it open. */
  readonly memory: MemoryKind;
  readonly prototype: Uapi<object>;
  backend(): UapiBackend;
  /** For the conformance suite. */
  subject(): SteppedSubject;
}

/** A prototype, put to use in one way, for scenarios and the evaluation. */
export function inUse<Options extends object>(
  uapi: Uapi<Options>,
  use: UapiUse<Options> = {},
  naming: { readonly name?: string; readonly title?: string } = {},
): UapiInUse {
  const name = naming.name ?? (use.userfaultfd ? `${uapi.name}+uffd` : uapi.name);
  return {
    name,
    title: naming.title ?? uapi.source.title,
    status: uapi.source.status,
    memory: uapi.definition.memory ?? 'anonymous',
    prototype: uapi as unknown as Uapi<object>,
    backend: () => uapi.backend(use),
    subject: () => ({ ...uapi.subject(use), name }),
  };
}

const beside = { userfaultfd: true } as const;

/** What is real and what was proposed, each as it is meant to be used, and the first versions that were settled for. */
export const UAPIS: readonly UapiInUse[] = [
  inUse(userfaultfdModel, {}, { title: 'userfaultfd, Linux 6.18' }),
  inUse(userfaultfdRwpModel, {}, { title: 'userfaultfd with RWP, Linux 7.3' }),
  inUse(vacatedSlot, {}, { title: 'vacated memslots alone' }),
  inUse(vacatedSlot, beside, { title: 'vacated memslots beside a userfaultfd' }),
  inUse(memslotHole, beside, { title: 'memslot holes beside a userfaultfd' }),
  inUse(presentBitmap, {}, { title: 'present bitmap, KVM waits at its choke point' }),
  inUse(presentBitmap, beside, { title: 'present bitmap beside a userfaultfd' }),
  inUse(
    presentBitmap,
    { kernelAccess: 'error' },
    { name: 'present-bitmap-errors', title: "present bitmap, KVM's own accesses fail" },
  ),
  inUse(exitOnMissing, beside, { title: 'exit on missing beside a userfaultfd' }),
  inUse(kvmUserfault, {}, { title: 'KVM Userfault alone' }),
  inUse(kvmUserfault, beside, { title: 'KVM Userfault beside a userfaultfd' }),
  inUse(asyncPf, {}, { title: 'asynchronous page faults by token, alone' }),
  inUse(asyncPf, beside, { title: 'asynchronous page faults by token, beside a userfaultfd' }),
  inUse(
    asyncPf,
    { ...beside, mode: 'ring' },
    { name: 'async-pf-ring+uffd', title: 'asynchronous page faults by ring, beside a userfaultfd' },
  ),
  inUse(fileUffd, {}, { title: 'a userfaultfd on a file' }),
];
