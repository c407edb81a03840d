import { type GuestBackendName } from 'demand-paging/guests';

/** Nobody says when another thread has dropped pages. */
const NO_EVENTS = ['remove-before-fault', 'again-makes-progress'];

/** No vCPU of arm64 has KVM copy memory, and the kernel's other copies do not meet the slots. */
const NO_COPIES = process.arch === 'arm64' ? ['kernel-access-errors-then-retries'] : [];

/** What does not apply to a backend, because it does not declare it. */
export const GUEST_EXCEPTIONS: Readonly<Record<GuestBackendName, readonly string[]>> = {
  'kvm-exit': [...NO_EVENTS, 'write-protect-is-atomic', 'kernel-access-blocks', ...NO_COPIES],
  'memslot-hole': [...NO_EVENTS, 'write-protect-is-atomic', 'kernel-access-blocks', ...NO_COPIES],
  composite: [...NO_EVENTS, 'write-protect-is-atomic', 'kernel-access-errors-then-retries'],
  'guest-memfd': [...NO_EVENTS, 'write-protect-is-atomic', 'kernel-access-errors-then-retries'],
};
