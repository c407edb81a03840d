export { adopt, type AdoptOptions } from './adopt.js';
export { userfaultfd } from './backend.js';
export { type LocalEvent, type UserfaultfdBackendOptions } from './options.js';
export { openUserfaultfdPort, UserfaultfdPort } from './fault-port.js';
export { type UserfaultfdPortToken } from './port-token.js';
export { type KickToken } from './kick.js';
export { type Segment } from './address-map.js';
export { measureCoverage, type CoverageAccessor, type MeasureCoverageOptions } from './measure-coverage.js';
