import { guestConformance } from './support/guest-conformance.js';

guestConformance('kvm-exit');
