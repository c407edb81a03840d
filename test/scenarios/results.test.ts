import { describe, expect, test } from 'vitest';
import { caseText, runScenario, SCENARIOS, UAPIS } from 'demand-paging/scenarios';

// Case by case, so that a change of any result is seen in a review.
describe.each(SCENARIOS.map((scenario) => [scenario.name, scenario] as const))('%s', (name, scenario) => {
  test('every case on every UAPI: as recorded', { timeout: 60_000 }, async () => {
    const table: string[] = [];
    for (const uapi of UAPIS) {
      const { cases } = await runScenario(scenario, uapi);
      expect(cases.map((one) => one.case)).toEqual(Object.keys(scenario.cases));
      for (const result of cases) {
        const { case: which, outcome, trace } = result;
        table.push(`${uapi.name.padEnd(22)} ${which.padEnd(20)} ${outcome.padEnd(9)} ${caseText(result)}`);
        // What a kernel engineer would ask for first.
        if (outcome === 'fails' || outcome === 'hangs' || outcome === 'silent')
          expect(trace.length).toBeGreaterThan(1);
      }
    }
    await expect(`${table.join('\n')}\n`).toMatchFileSnapshot(`__snapshots__/${name}.txt`);
  });
});

test('a result is plain data, and the same every time', async () => {
  const [scenario] = SCENARIOS;
  const [uapi] = UAPIS;
  const [first, second] = [await runScenario(scenario!, uapi!), await runScenario(scenario!, uapi!)];
  expect(structuredClone(first)).toEqual(second);
  expect(JSON.parse(JSON.stringify(first))).toEqual(second);
});
