import { type MemoryKind } from '../../api/layout.js';
import { type Verb, VERB, VERBS } from '../../api/resolution.js';
import { UFFD_FEATURE, type UffdIoctl } from '../../linux/index.js';

const IOCTL: Readonly<Partial<Record<Verb, UffdIoctl>>> = {
  copy: 'COPY',
  zeropage: 'ZEROPAGE',
  continue: 'CONTINUE',
  move: 'MOVE',
  poison: 'POISON',
  writeprotect: 'WRITEPROTECT',
  rwprotect: 'RWPROTECT',
  wake: 'WAKE',
};

/**
 * The verbs that work on one registered range, as a mask by verb code. UFFDIO_REGISTER lists some that this
 * kind of memory then refuses, and some whose feature was not asked for: those are left out.
 */
export function verbMask(ioctls: ReadonlySet<UffdIoctl>, features: number, memory: MemoryKind): number {
  let mask = 0;
  for (const verb of VERBS) {
    const ioctl = IOCTL[verb];
    if (ioctl === undefined || !ioctls.has(ioctl)) continue;
    if (verb === 'move' && (memory !== 'anonymous' || !(features & UFFD_FEATURE.MOVE))) continue;
    if (verb === 'poison' && !(features & UFFD_FEATURE.POISON)) continue;
    if (verb === 'zeropage' && memory === 'hugetlb') continue;
    mask |= 1 << VERB[verb];
  }
  return mask;
}

/** The verbs of a mask by name. */
export const verbsOf = (mask: number): Verb[] => VERBS.filter((verb) => mask & (1 << VERB[verb]));

/** The mask of a list of verbs. */
export const maskOf = (verbs: readonly Verb[]): number =>
  verbs.reduce((mask, verb) => mask | (1 << VERB[verb]), 0);
