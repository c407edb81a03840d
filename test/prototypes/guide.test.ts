import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { type Uapi, type UapiEvaluation } from 'demand-paging/prototypes';
import { complaintsAbout } from '../support/sample-complaints.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const GUIDE = readFileSync(join(ROOT, 'docs/prototyping.md'), 'utf8');
const BLOCK = /^```(ts|text)\n([\s\S]*?)^```$/gm;

const blocks = [...GUIDE.matchAll(BLOCK)].map(([, language, text]) => ({ language, text: text! }));
/** Samples by the name in their first line. */
const samples = new Map(
  blocks
    .filter(({ language }) => language === 'ts')
    .map(({ text }) => [/^\/\/ (\S+\.ts)\n/.exec(text)?.[1] ?? 'a sample without a name', text] as const),
);
const outputs = blocks.filter(({ language }) => language === 'text').map(({ text }) => text.trimEnd());

const folder = mkdtempSync(join(tmpdir(), 'guide-'));
writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
for (const [name, text] of samples) writeFileSync(join(folder, name), text);
afterAll(() => rmSync(folder, { recursive: true }));

/** What a sample exports, once it has run. */
const run = (name: string): Promise<Record<string, unknown>> =>
  import(/* @vite-ignore */ join(folder, name)) as Promise<Record<string, unknown>>;

describe('the guide to prototyping', () => {
  test('has its samples', () => {
    expect([...samples.keys()]).toEqual(['page-lease.ts', 'evaluate.ts', 'page-lease-2.ts', 'evaluate-2.ts']);
  });

  test('shows samples that compile', { timeout: 60_000 }, () => {
    expect(complaintsAbout(folder, [...samples.keys()])).toEqual([]);
  });

  test('shows the results that its first sample gets', { timeout: 60_000 }, async () => {
    const { first } = (await run('evaluate.ts')) as { first: UapiEvaluation };
    expect(first.text).toContain(outputs[0]);
    expect(first.failed.join('\n')).toBe(outputs[1]);
    expect(first.text).toContain(outputs[2]);
    expect(first.text).toContain('trace:');
  });

  test('shows the results that its second sample gets', { timeout: 60_000 }, async () => {
    const { second, mistaken } = (await run('evaluate-2.ts')) as Record<string, UapiEvaluation>;
    expect(second!.text).toContain(outputs[3]);
    expect(second!.failed).toEqual([]);
    expect(mistaken!.failed.join('\n')).toBe(outputs[4]);
  });

  test('shows the ioctl table that is printed', async () => {
    const { pageLease2 } = (await run('page-lease-2.ts')) as { pageLease2: Uapi<object> };
    expect(pageLease2.ioctlTable()).toBe(outputs[5]);
    expect(pageLease2.header()).toContain('_IOW(KVMIO, 0xf8, struct kvm_lease)');
  });
});
