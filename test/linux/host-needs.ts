import { existsSync } from 'node:fs';
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
  try {
    const support = userfaultfdSupport(options);
    const lacking = needs.filter((need) => !support.features.includes(need));
    if (lacking.length > 0) context.skip(`this kernel's userfaultfd lacks ${lacking.join(', ')}`);
  } catch (error) {
    if (
      error instanceof DemandPagingError &&
      ['NO_PERMISSION', 'NO_DEVICE', 'NOT_SUPPORTED'].includes(error.code)
    ) {
      context.skip(error.message);
    }
    throw error;
  }
  return Userfaultfd.open(options);
}

export function needFile(context: TestContext, path: string): void {
  if (!existsSync(path)) context.skip(`no ${path} here`);
}
