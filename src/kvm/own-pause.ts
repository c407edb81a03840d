import { type SharedVcpuState } from './shared-vcpu-state.js';

/** Shared vCPU states, by their words, whose vCPUs this isolate has paused and not yet resumed. */
const paused = new Set<SharedArrayBuffer>();

/**
 * Records that this isolate pauses the vCPUs of a shared state, from the request on. Returns a function that
 * ends the record.
 */
export function beginOwnPause(shared: SharedVcpuState): () => void {
  const { words } = shared.token;
  paused.add(words);
  return () => void paused.delete(words);
}

/**
 * Whether this isolate itself has to end the pause of these vCPUs: a thread that waits for the end here would
 * deadlock.
 */
export const isPausedByThisThread = (shared: SharedVcpuState): boolean => paused.has(shared.token.words);
