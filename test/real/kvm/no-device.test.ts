import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';

/** Opens a pager by each backend where /dev has nothing, and says what came of it; then whether guests could run. */
const SCRIPT = `
  import { openPager, gpa, fileOffset } from 'demand-paging';
  import { composite } from 'demand-paging/backends/composite';
  import { guestMemfd } from 'demand-paging/backends/guest-memfd';
  import { kvmExit } from 'demand-paging/backends/kvm-exit';
  import { probeGuest } from 'demand-paging/guests';
  import { zero } from 'demand-paging/sources';
  const backends = [[kvmExit, 'anonymous'], [composite, 'anonymous'], [guestMemfd, 'guest-memfd']];
  for (const [make, memory] of backends) {
    const regions = [{ gpa: gpa(0), length: 4096n, sourceOffset: fileOffset(0), memory, pageSize: 4096 }];
    await openPager({ backend: make({ vm: 0, vcpus: 1 }), regions, source: zero(4096) }).then(
      () => console.log('{}'),
      ({ code, message, hint }) => console.log(JSON.stringify({ code, message, hint })),
    );
  }
  const { met, list } = probeGuest({ backend: 'kvm-exit' });
  console.log(JSON.stringify({ met, lacking: list.filter((each) => !each.met) }));
`;

test('without /dev/kvm every backend that is part of a VM says NO_DEVICE, and what to do', (context) => {
  // A mount namespace of its own, in which /dev has nothing.
  const command = 'mount -t tmpfs none /dev && exec "$0" --input-type=module -e "$1"';
  const child = spawnSync('unshare', ['--mount', 'sh', '-c', command, process.execPath, SCRIPT], {
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
