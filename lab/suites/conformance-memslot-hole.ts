import { guestConformance } from './support/guest-conformance.js';

guestConformance('memslot-hole');
