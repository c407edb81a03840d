import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { parseVectors, type Vector } from 'demand-paging/arm64';
import { cli, vectors, widest, Workplace } from './cli.js';

const FAMILIES = ['A', 'B', 'C', 'D', 'E', 'F', 'G'];

const read = (family: string): Vector[] => parseVectors(readFileSync(vectors(family), 'utf8'), family);

const find = (id: string): Vector => read(id[0]!).find((vector) => vector.id === id)!;

const place = new Workplace();
afterAll(() => place[Symbol.dispose]());

describe('its replay', () => {
  test('says ok to every recorded vector, a line each, and counts them', async () => {
    const { status, stdout, stderr } = await cli(['its', 'replay', ...FAMILIES.map(vectors)]);
    const ids = FAMILIES.flatMap(read).map(({ id }) => id);
    expect(stdout).toBe([...ids.map((id) => `${id} ok`), `${ids.length} passed, 0 failed`, ''].join('\n'));
    expect(stderr).toBe('');
    expect(status).toBe(0);
  });

  test('names the first difference of a vector that is not as recorded, goes on, and fails', async () => {
    const [first, second, ...rest] = readFileSync(vectors('A'), 'utf8').split('\n');
    const changed = JSON.parse(second!) as { id: string; steps: { op: string; ret?: number }[] };
    const step = changed.steps.findIndex(({ op }) => op === 'save_tables');
    changed.steps[step]!.ret = -22;
    const file = place.path('changed.jsonl');
    writeFileSync(file, [first, JSON.stringify(changed), ...rest].join('\n'));
    const { status, stdout } = await cli(['its', 'replay', file]);
    const lines = stdout.trimEnd().split('\n');
    expect(lines[1]).toBe(`${changed.id} step ${step} (save_tables): ret is 0, expected -22`);
    expect(lines.at(-1)).toBe(`${lines.length - 2} passed, 1 failed`);
    expect(lines.filter((line) => line.endsWith(' ok'))).toHaveLength(lines.length - 2);
    expect(status).toBe(1);
  });

  test.each([
    ['no JSON', 'what is this', /:2: not JSON/],
    ['a wrong field', '{"id":3}', /:2: id: /],
    ['an unknown operation', '{"steps":[{"op":"dance"}]}', /:2: /],
  ])('names file, line and field of %s, and replays nothing', async (_what, line, message) => {
    const [good] = readFileSync(vectors('A'), 'utf8').split('\n');
    const file = place.path('malformed.jsonl');
    writeFileSync(file, `${good}\n${line}\n`);
    const { status, stdout, stderr } = await cli(['its', 'replay', vectors('A'), file]);
    expect(stderr).toMatch(message);
    expect(stderr).toContain(`error BAD_IMAGE: ${file}`);
    expect(stdout).toBe('');
    expect(status).toBe(1);
  });

  test('says which file cannot be read, and that an empty one holds nothing', async () => {
    expect(await cli(['its', 'replay', place.path('absent')])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('error SOURCE_FAILED'),
    });
    writeFileSync(place.path('empty.jsonl'), '\n');
    expect(await cli(['its', 'replay', place.path('empty.jsonl')])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('holds no vector'),
    });
  });

  test('--json is one document', async () => {
    const { stdout } = await cli(['its', 'replay', '--json', vectors('C')]);
    const { passed, failed, results } = JSON.parse(stdout) as {
      passed: number;
      failed: number;
      results: { kind: string }[];
    };
    expect({ passed, failed }).toEqual({ passed: read('C').length, failed: 0 });
    expect(results.every(({ kind }) => kind === 'ok')).toBe(true);
  });
});

interface Dump {
  readonly devices: readonly {
    id: number;
    eventBits: number;
    entries: readonly { event: number; intid: number; collection: number }[];
  }[];
  readonly collections: readonly { id: number; target?: number }[];
  readonly problems: readonly unknown[];
}

/** Entries as a `state` step lists them, without the target. */
const entriesOf = ({ devices }: Dump): number[][] =>
  devices.flatMap(({ id, eventBits, entries }) =>
    entries.map((entry) => [id, eventBits, entry.event, entry.intid, entry.collection]),
  );

const stateAfterRestore = (vector: Vector): number[][] => {
  const restored = vector.steps.findIndex(({ op }) => op === 'restore_tables');
  const state = vector.steps.slice(restored).find(({ op }) => op === 'state') as Extract<
    Vector['steps'][number],
    { op: 'state' }
  >;
  return state.ites.map((entry) => entry.slice(0, 5));
};

describe('its dump', () => {
  test.each(['A-000', 'A-050', 'B-060', 'C-000', 'C-030'])(
    'decodes the tables of %s as the kernel restored them',
    async (id) => {
      const { status, stdout } = await cli(['its', 'dump', '--json', `${vectors(id[0]!)}#${id}`]);
      const dump = JSON.parse(stdout) as Dump;
      expect(dump.problems).toEqual([]);
      const order = (a: number[], b: number[]): number => a[0]! - b[0]! || a[2]! - b[2]!;
      expect(entriesOf(dump).sort(order)).toEqual(stateAfterRestore(find(id)).sort(order));
      expect(status).toBe(0);
    },
  );

  test('shows them in text', async () => {
    const { stdout } = await cli(['its', 'dump', `${vectors('B')}#B-060`]);
    expect(stdout).toContain('device 0xc000: events 0 to 7, ITT at 0x880200000');
    expect(stdout).toMatch(/^ +4 +65015 +0x1 +no +156 +yes$/m);
    expect(stdout).toMatch(/2 collections, 2 devices, 10 entries\n$/);
    expect(widest(stdout)).toBeLessThanOrEqual(80);
  });

  test('decodes a raw image with the registers of a vector, and lists what a restore would refuse', async () => {
    const image = place.path('zero.img');
    writeFileSync(image, new Uint8Array(16 * 1024 * 1024));
    const given = ['its', 'dump', '--json', image, '--vector', `${vectors('B')}#B-060`];
    expect(entriesOf(JSON.parse((await cli(given)).stdout) as Dump)).toEqual([]);
    // The same tables, but the image begins elsewhere: nothing of them can be read.
    const elsewhere = await cli([...given, '--base', '0x1000000000']);
    expect((JSON.parse(elsewhere.stdout) as Dump).problems).not.toEqual([]);
    expect(elsewhere.status).toBe(1);
  });

  test.each([
    [`${vectors('F')}#F-010`, /F-010 cannot be restored from/],
    [`${vectors('A')}#Z-999`, /holds no vector Z-999/],
  ])('refuses %s', async (name, message) => {
    const { status, stderr } = await cli(['its', 'dump', name]);
    expect(stderr).toMatch(message);
    expect(status).toBe(1);
  });
});

interface PlanDocument {
  readonly touched: readonly { page: string; kind: string }[];
  readonly rounds: readonly (readonly string[])[];
  readonly speculated: readonly string[];
  readonly elapsed_ms: number;
}

describe('its plan', () => {
  const name = `${vectors('B')}#B-060`;
  const plan = async (...more: string[]): Promise<PlanDocument> =>
    JSON.parse((await cli(['its', 'plan', '--json', name, ...more])).stdout) as PlanDocument;

  test('touches what the kernel touched, in its order', async () => {
    const restore = find('B-060').steps.find(({ op }) => op === 'restore_tables') as {
      faults?: readonly (readonly [bigint, string])[];
    };
    const { touched } = await plan();
    expect(touched.map(({ page, kind }) => [BigInt(page), kind])).toEqual(restore.faults);
  });

  test('takes a latency a round, and with speculation far fewer', async () => {
    const strict = await plan('--latency', '7');
    expect(strict.elapsed_ms).toBe(7 * strict.rounds.length);
    expect(strict.speculated).toEqual([]);
    expect(strict.rounds.flat().sort()).toEqual(strict.touched.map(({ page }) => page).sort());
    const bold = await plan('--latency', '7', '--speculate');
    expect(bold.touched).toEqual(strict.touched);
    expect(bold.rounds.length).toBeLessThan(strict.rounds.length / 5);
    expect(bold.elapsed_ms).toBe(7 * bold.rounds.length);
  });

  test('one page at a time takes a latency a page', async () => {
    const one = await plan('--latency', '3', '--in-flight', '1');
    expect(one.elapsed_ms).toBe(3 * one.touched.length);
  });

  test('--explain draws the waterfall inside 80 columns', async () => {
    const { stdout, status } = await cli(['its', 'plan', name, '--explain', '--speculate']);
    expect(stdout).toMatch(/^0x880050000 +collection-table +R +█+$/m);
    expect(stdout).toContain('65 pages touched, known in 5 rounds; 26 more fetched for nothing');
    expect(widest(stdout)).toBeLessThanOrEqual(80);
    expect(status).toBe(0);
  });
});
