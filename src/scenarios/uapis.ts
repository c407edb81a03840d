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

/** A UAPI as scenarios and the judge take it: a prototype, put to use in one way. */
export interface JudgedUapi {
  /** Kebab-case; `+uffd` where a userfaultfd stands beside it. */
  readonly name: string;
  /** In a few words, for people. */
  readonly title: string;
  /** What is real (`in Linux`), or what became of the proposal. */
  readonly status: string;
  /** The memory it is played on, where the scenario leaves it open. */
  readonly memory: MemoryKind;
  readonly prototype: Uapi<object>;
  backend(): UapiBackend;
  /** For the conformance suite. */
  subject(): SteppedSubject;
}

/** Makes a UAPI judgeable by scenarios: what a prototype of one's own goes through. */
export function judged<Options extends object>(
  uapi: Uapi<Options>,
  use: UapiUse<Options> = {},
  naming: { readonly name?: string; readonly title?: string } = {},
): JudgedUapi {
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
export const UAPIS: readonly JudgedUapi[] = [
  judged(userfaultfdModel, {}, { title: 'userfaultfd, Linux 6.18' }),
  judged(userfaultfdRwpModel, {}, { title: 'userfaultfd with RWP, Linux 7.3' }),
  judged(vacatedSlot, {}, { title: 'vacated memslots alone' }),
  judged(vacatedSlot, beside, { title: 'vacated memslots beside a userfaultfd' }),
  judged(memslotHole, beside, { title: 'memslot holes beside a userfaultfd' }),
  judged(presentBitmap, {}, { title: 'present bitmap, KVM waits at its choke point' }),
  judged(presentBitmap, beside, { title: 'present bitmap beside a userfaultfd' }),
  judged(
    presentBitmap,
    { kernelAccess: 'error' },
    { name: 'present-bitmap-errors', title: "present bitmap, KVM's own accesses fail" },
  ),
  judged(exitOnMissing, beside, { title: 'exit on missing beside a userfaultfd' }),
  judged(kvmUserfault, {}, { title: 'KVM Userfault alone' }),
  judged(kvmUserfault, beside, { title: 'KVM Userfault beside a userfaultfd' }),
  judged(asyncPf, {}, { title: 'asynchronous page faults by token, alone' }),
  judged(asyncPf, beside, { title: 'asynchronous page faults by token, beside a userfaultfd' }),
  judged(
    asyncPf,
    { ...beside, mode: 'ring' },
    { name: 'async-pf-ring+uffd', title: 'asynchronous page faults by ring, beside a userfaultfd' },
  ),
  judged(fileUffd, {}, { title: 'a userfaultfd on a file' }),
];
