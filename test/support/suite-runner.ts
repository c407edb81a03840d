import { describe, test } from 'vitest';
import { type Runner } from 'demand-paging/conformance';

/**
 * Has the suite's properties run as tests here. `lack`: why they cannot on this host; they are then skipped,
 * and say so.
 */
export const suiteRunner = (lack: string | undefined, timeout_ms: number): Runner => ({
  describe,
  test: (name, body) =>
    test(
      name,
      (context) => {
        if (lack !== undefined) context.skip(lack);
        return body((reason) => context.skip(reason));
      },
      timeout_ms,
    ),
});
