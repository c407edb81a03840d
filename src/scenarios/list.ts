import { balloon } from './balloon.js';
import { manyVcpus } from './many-vcpus.js';
import { freeze } from './freeze.js';
import { handlerProcess } from './handler-process.js';
import { hugePage } from './huge-page.js';
import { itsRestore } from './its-restore.js';
import { poison } from './poison.js';
import { type Scenario } from './scenario.js';
import { vhost } from './vhost.js';

/** Every scenario, the seed of the thread first. */
export const SCENARIOS: readonly Scenario[] = [
  itsRestore,
  vhost,
  handlerProcess,
  hugePage,
  poison,
  freeze,
  balloon,
  manyVcpus,
];
