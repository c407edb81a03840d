/**
 * Real vCPUs that access paged memory on command: guests for testing and measuring backends that are part of
 * a VM. x86-64 and arm64, /dev/kvm.
 */
export { GuestMachine, type GuestVcpu } from './guest-machine.js';
export { GuestSpace, type VcpuArea } from './guest-space.js';
export {
  GUEST_BACKENDS,
  GuestBackend,
  guestSubject,
  probeGuest,
  type GuestBackendChoice,
  type GuestBackendName,
} from './kvm-subject.js';
export {
  GUEST_COVERAGE_CASES,
  measureGuestCoverage,
  probeGuestCoverage,
  type GuestCoverageCase,
} from './measure-coverage.js';
export { GUEST_HOW, GUEST_SITES, type GuestPlace, VcpuAccessor } from './vcpu-accessor.js';
export { type GuestResult, type GuestSite } from './messages.js';
