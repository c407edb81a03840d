import { guestConformance } from './support/guest-conformance.js';

guestConformance('guest-memfd');
