// The image of a guest as a source in the resolver's thread: it lies in this process, so nothing is copied on
// the way.
import { openMemory } from 'demand-paging/sources';

/** @param {{ address: number, length: number }} native */
export const openImage = (native) => openMemory({ native });
