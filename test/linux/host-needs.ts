import { type TestContext } from 'vitest';
import { DemandPagingError } from '../../src/api/index.js';
import {
  Userfaultfd,
  userfaultfdSupport,
  type UffdFeature,
  type UserfaultfdOptions,
} from '../../src/linux/index.js';

/** A userfaultfd with the named features, or a test skipped with the reason for which there is none. */
export function openOrSkip(
  context: TestContext,
  options: UserfaultfdOptions,
  ...needs: UffdFeature[]
): Userfaultfd {
  const { features: _, ...probe } = options; // asked for by the caller only after the probe has seen them
  try {
    const support = userfaultfdSupport(probe);
    const lacking = needs.filter((need) => !support.features.includes(need));
    if (lacking.length > 0) context.skip(`this kernel's userfaultfd lacks ${lacking.join(', ')}`);
  } catch (error) {
    const refused = error instanceof DemandPagingError && ['NO_PERMISSION', 'NO_DEVICE'].includes(error.code);
    if (refused) context.skip(error.message);
    throw error;
  }
  return Userfaultfd.open(options);
}
