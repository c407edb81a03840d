import { expect, test } from 'vitest';
import { gpa } from '../../src/api/index.js';
import { VirtualSource } from '../../src/cli/virtual-source.js';

test('a source with a clock of its own: no time passes while the event loop has its turn', async () => {
  const source = new VirtualSource(7);
  const arrived = source.wait([gpa(0)]);
  for (let turn = 0; turn < 3; turn++) await source.turn();
  expect(source.now_ms).toBe(0);
  await arrived;
  expect(source.fetches).toEqual([{ page: gpa(0), from_ms: 0, to_ms: 7 }]);
});
