import { describe, expect, test } from 'vitest';
import { conformance, inapplicable, PROPERTIES, titleOf } from 'demand-paging/conformance';
import { MODEL_SUBJECTS } from './model-subject.js';
import { REPLAY, RUNS_FACTOR } from './runs.js';

/** Every property is checked this often, */
const RUNS = 1000;
/** and on the subjects that only vary what another has checked so, this often. */
const VARIATION_RUNS = 250;

const reasons = new Map(
  await Promise.all(
    MODEL_SUBJECTS.map(async (subject) => [subject.name, await inapplicable(subject)] as const),
  ),
);

const TITLES = PROPERTIES.map(titleOf);
const checkedOften = new Set<string>();

for (const subject of MODEL_SUBJECTS) {
  const applying = TITLES.filter((title) => !reasons.get(subject.name)!.has(title));
  const isVariation = applying.every((name) => checkedOften.has(name));
  const runs = (isVariation ? VARIATION_RUNS : RUNS) * RUNS_FACTOR;
  if (!isVariation) for (const name of applying) checkedOften.add(name);
  const timeout = Math.max(30_000, runs * 100);
  const runner = {
    describe,
    test: (name: string, body: (skip: (reason: string) => void) => Promise<void>) =>
      test(name, (context) => body((reason) => context.skip(reason)), timeout),
  };
  conformance(runner, subject, { runs, ...REPLAY, except: [...reasons.get(subject.name)!.keys()] });
}

test('every property is checked a thousand times', () => {
  expect([...checkedOften].sort()).toEqual([...TITLES].sort());
});

describe('what does not apply', () => {
  test('is what follows from each manifest, and nothing else', () => {
    const table = Object.fromEntries([...reasons].map(([name, map]) => [name, Object.fromEntries(map)]));
    expect(table).toMatchInlineSnapshot(`
      {
        "the model: every access fails": {
          "close-is-definite": "no site that can be exercised here waits for a page and survives its failure",
          "duplicate-wakes": "no site that can be exercised here waits for a page",
          "exit-while-blocked-terminates": "no accessor that waits can be killed here",
          "freeze-is-reversible": "no site that can be exercised here waits for a page",
          "kernel-access-blocks": "the kernel's own accesses are declared 'errors'",
          "no-lost-wake": "no site that can be exercised here waits for a page",
          "no-torn-page": "no site that can be exercised here waits for a page",
          "no-zero-leak": "no site that can be exercised here waits for a page",
          "poison-is-sticky, until the page is dropped": "no site that can be exercised here waits for a page and survives its failure",
          "prefetch-never-resurrects": "no site that can be exercised here waits for a page",
          "remove-before-fault": "no site that can be exercised here waits for a page",
          "removed-reads-zero": "no site that can be exercised here waits for a page",
          "source-failure-is-loud": "no site that can be exercised here waits for a page and survives its failure",
          "write-protect-is-atomic": "no site that can be exercised here writes to memory and waits",
        },
        "the model: every access waits": {
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
        },
        "the model: huge pages": {
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
        },
        "the model: nothing is announced": {
          "again-makes-progress": "other threads cannot remove pages here, or are not noticed",
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
          "remove-before-fault": "other threads cannot remove pages here, or are not noticed",
        },
        "the model: pages are moved in": {
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
        },
        "the model: shared memory": {
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
        },
        "the model: shared memory, filled in place": {
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
        },
        "the model: the kernel's own accesses fail": {
          "kernel-access-blocks": "the kernel's own accesses are declared 'errors'",
        },
        "the model: the least of verbs": {
          "close-is-definite": "pages that are missing cannot be poisoned here, so an access that waits for one cannot be let go",
          "handler-death-is-seen": "pages cannot be poisoned here",
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
          "poison-is-sticky": "pages cannot be poisoned here",
          "poison-is-sticky, until the page is dropped": "pages cannot be poisoned here",
          "poison-is-sticky, whatever is asked of the pager": "pages cannot be poisoned here",
          "source-failure-is-loud": "pages cannot be poisoned here, so an access that waits for one cannot be let go",
          "write-protect-is-atomic": "there is no write protection here",
        },
        "the model: vCPUs exit, the rest waits": {
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
        },
        "the model: vCPUs take aborts, others are not noticed": {
          "kernel-access-errors-then-retries": "the kernel's own accesses are declared 'blocks'",
        },
      }
    `);
  });
});
