import { spawn } from 'node:child_process';
import { expect, test } from 'vitest';
import { skipWithoutUserfaultfd } from './scene.js';

skipWithoutUserfaultfd();

const script = new URL('./fixtures/ending.mjs', import.meta.url).pathname;
/** Far more than it takes to start Node and to end it; far less than a hang. */
const LIMIT_MS = 10_000;
/** From the library's own word that the process may end. */
const END_MS = 2000;

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly took_ms: number;
}

async function end(way: string): Promise<Ended> {
  const started = performance.now();
  const child = spawn(process.execPath, [script, way], { timeout: LIMIT_MS, killSignal: 'SIGKILL' });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk) => (stdout += String(chunk)));
  child.stderr.on('data', (chunk) => (stderr += String(chunk)));
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
    child.on('close', (...how) => resolve(how)),
  );
  return { code, signal, stdout, stderr, took_ms: performance.now() - started };
}

test.each([
  'a thread blocked',
  'a resolver asleep',
  'a resolver spinning',
  'a source that never answers',
  'attached in a worker',
])('process.exit with %s ends at once, with its status', async (way) => {
  const { code, signal, stderr, took_ms } = await end(way);
  expect({ code, signal, stderr }).toEqual({ code: 7, signal: null, stderr: '' });
  const { took_ms: closed_ms } = await end('all closed'); // what starting and loading alone takes here and now
  expect(took_ms - closed_ms).toBeLessThan(END_MS);
});

test("other listeners of the process's end are heard, later ones too", async () => {
  expect(await end('a thread blocked')).toMatchObject({ code: 7, stdout: 'listener 7\n' });
});

test('an uncaught error is still printed', async () => {
  const { code, stderr } = await end('an uncaught error');
  expect(code).toBe(1);
  expect(stderr).toMatch(/Error: the reason\n\s+at /);
});

test('with everything closed nothing is left listening', async () => {
  expect(await end('all closed')).toMatchObject({
    code: 0,
    stderr: '',
    stdout: '2 while open, 0 after\n',
  });
});
