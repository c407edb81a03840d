import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { cached, readCached } from '../../lab/machine/cache.js';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'lab-test-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const place = (): string => join(folder, 'newest');

const write = (text: string) => (into: string) => {
  writeFileSync(join(into, 'vmlinuz'), text);
  return Promise.resolve({ release: text });
};

const unwanted = (): Promise<never> => Promise.reject(new Error('made again'));

test('what is complete is not made again', async () => {
  expect(await cached(place(), 'recipe', write('7.0'))).toEqual({ facts: { release: '7.0' }, made: true });
  expect(await cached(place(), 'recipe', unwanted)).toEqual({ facts: { release: '7.0' }, made: false });
});

test('what was cut short leaves nothing', async () => {
  const cut = cached(place(), 'recipe', async (into) => {
    writeFileSync(join(into, 'vmlinuz'), 'half');
    throw new Error('connection closed');
  });
  await expect(cut).rejects.toThrow('connection closed');
  expect(readdirSync(folder)).toEqual([]);
});

test('what was cut short leaves what was there before', async () => {
  await cached(place(), 'recipe', write('7.0'));
  await expect(cached(place(), 'another recipe', unwanted)).rejects.toThrow('made again');
  expect(await readCached(place(), 'recipe')).toEqual({ release: '7.0' });
  expect(readdirSync(folder)).toEqual(['newest']);
});

test.each([
  ['a file cut short', () => writeFileSync(join(place(), 'vmlinuz'), '7')],
  ['a file gone', () => rmSync(join(place(), 'vmlinuz'))],
  ['a damaged manifest', () => writeFileSync(join(place(), 'complete.json'), '{"recipe":')],
])('%s in the cache is noticed, and made anew', async (_what, damage) => {
  await cached(place(), 'recipe', write('7.0'));
  damage();
  expect(await cached(place(), 'recipe', write('7.1'))).toEqual({ facts: { release: '7.1' }, made: true });
  expect(readFileSync(join(place(), 'vmlinuz'), 'utf8')).toBe('7.1');
  expect(readdirSync(folder)).toEqual(['newest']);
});

test('another recipe makes it anew', async () => {
  await cached(place(), 'recipe', write('7.0'));
  expect((await cached(place(), 'recipe of today', write('7.1'))).made).toBe(true);
  expect(existsSync(join(place(), 'scratch'))).toBe(false);
});
