import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const PROGRAM = fileURLToPath(new URL('./fixtures/open-each.mjs', import.meta.url));

test('KVM backends without /dev/kvm: NO_DEVICE with a hint', (context) => {
  // A mount namespace of its own, in which /dev has nothing.
  const command = 'mount -t tmpfs none /dev && exec "$0" "$1"';
  const child = spawnSync('unshare', ['--mount', 'sh', '-c', command, process.execPath, PROGRAM], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  if (child.error || /unshare|mount:/.test(child.stderr))
    context.skip(`no mount namespace to hide /dev in: ${child.error?.message ?? child.stderr.trim()}`);
  const lines = child.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines).toHaveLength(4);
  for (const line of lines.slice(0, 3))
    expect(line).toMatchObject({
      code: 'NO_DEVICE',
      message: expect.stringContaining('/dev/kvm') as string,
      hint: expect.stringMatching(/\S/) as string,
    });
  expect(lines[3]).toMatchObject({ met: false });
});
