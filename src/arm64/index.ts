export { parseVectors, type Vector } from './vector.js';
export { replayVector, type ReplayResult } from './replay.js';
export { Vgic } from './vgic.js';
