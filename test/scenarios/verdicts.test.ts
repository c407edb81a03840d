import { describe, expect, test } from 'vitest';
import { playScenario, SCENARIOS, UAPIS } from 'demand-paging/scenarios';

// Grade by grade, so that a change of any verdict is seen in a review.
describe.each(SCENARIOS.map((scenario) => [scenario.name, scenario] as const))('%s', (name, scenario) => {
  test('has the same verdicts as before', { timeout: 60_000 }, async () => {
    const table: string[] = [];
    for (const uapi of UAPIS) {
      const verdict = await playScenario(scenario, uapi);
      expect(verdict.cases.map((one) => one.case)).toEqual(Object.keys(scenario.cases));
      for (const { case: which, grade, says, timeline } of verdict.cases) {
        table.push(`${uapi.name.padEnd(22)} ${which.padEnd(20)} ${grade.padEnd(9)} ${says}`);
        // What a kernel engineer would ask for first.
        if (grade === 'fails' || grade === 'hangs' || grade === 'silent')
          expect(timeline.length).toBeGreaterThan(1);
      }
    }
    await expect(`${table.join('\n')}\n`).toMatchFileSnapshot(`__snapshots__/${name}.txt`);
  });
});

test('a verdict is plain data, and the same every time', async () => {
  const [scenario] = SCENARIOS;
  const [uapi] = UAPIS;
  const [first, second] = [await playScenario(scenario!, uapi!), await playScenario(scenario!, uapi!)];
  expect(structuredClone(first)).toEqual(second);
  expect(JSON.parse(JSON.stringify(first))).toEqual(second);
});
