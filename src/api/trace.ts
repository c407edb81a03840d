import { type AccessSite } from './access.js';
import { type PageIndex } from './address.js';
import { type FaultKind } from './fault.js';
import { type Verb } from './resolution.js';

/** A thread, vCPU or process that accesses memory from one site. */
export interface Accessor {
  readonly kind: 'accessor';
  readonly site: AccessSite;
  /** Distinguishes the accesses of a run, in their order. */
  readonly number: number;
}

/** The thread or the thing that acts in a trace. */
export type Actor =
  | Accessor
  | {
      readonly kind:
        | 'guest'
        | 'guest-or-vmm'
        | 'handler'
        | 'kernel'
        | 'kvm'
        | 'page-cache'
        | 'pager'
        | 'resolver'
        | 'source'
        | 'suite'
        | 'time'
        | 'vcpus'
        | 'vhost'
        | 'vmm';
    };

/** What a steppable kernel, or the VMM's side of a prototype, does: an event of a trace. Plain data. */
export type KernelEvent = { readonly actor: Actor; readonly page?: PageIndex | undefined } & (
  | { readonly kind: 'stopped-at'; readonly fault: FaultKind }
  /** An access goes on to another state: it waits, has left KVM_RUN, tries again, or has ended. */
  | {
      readonly kind: 'access-state';
      readonly state: 'blocked' | 'exited' | 'running' | 'injected' | 'killed' | 'done' | 'errored';
      readonly errno?: number | undefined;
    }
  /** The kernel has carried out a verb for a page. */
  | { readonly kind: 'carried-out'; readonly verb: Verb }
  | { readonly kind: 'discarded' | 'unmapped' }
  /** A thread is about to discard pages by madvise(2). `sent`: whether userfaultfd says so. */
  | { readonly kind: 'discard-announced'; readonly advice: 'dontneed' | 'remove'; readonly sent: boolean }
  | { readonly kind: 'descriptor-closed' }
  /** UFFDIO_COPY or its kin, beside a presence of the prototype's own. */
  | { readonly kind: 'verb'; readonly verb: Verb; readonly errno: number }
  | { readonly kind: 'contents-written' | 'inserted' }
  | { readonly kind: 'marked'; readonly present: boolean }
  /** From `page` on memory is mapped as one block: its last page came, or the VMM has ended demand paging. */
  | { readonly kind: 'mapped-as-block'; readonly because: 'last-page-present' | 'flag-off' | 'one-slot' }
  /** A step of a prototype's own, in its words; nothing is decided by them. */
  | { readonly kind: 'step'; readonly text: string }
);
