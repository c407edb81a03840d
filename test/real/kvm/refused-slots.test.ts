import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { type Flavour, Rig } from './rig.js';

const script = new URL('./fixtures/refused.mjs', import.meta.url).pathname;
/** Far more than it takes to start Node, a VM and a pager under emulation; a hang lasts for ever. */
const LIMIT_MS = 60_000;
const FLAVOURS: readonly Flavour[] = ['kvm-exit', 'composite', 'guest-memfd'];

/** How openPager came out in a process that has nothing else to wait for. */
function outcomeOf(flavour: Flavour, what: string): unknown {
  const { stdout, stderr } = spawnSync(process.execPath, [script, flavour, what], {
    encoding: 'utf8',
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  return stdout === '' ? stderr : (JSON.parse(stdout) as unknown);
}

const refusal = (message: RegExp): Record<string, unknown> => ({
  settled: 'rejected',
  name: 'DemandPagingError',
  refused: 'BAD_RANGE',
  message: expect.stringMatching(message) as string,
  left: 0,
  code: 0,
  free: true,
  kept: true,
});

describe.for(FLAVOURS)('%s: KVM refuses a memslot: opening rejects and nothing is left', (flavour) => {
  test.for([
    [
      'overlap',
      'a memslot of the VMM overlaps',
      /memslot 144 at 0x100080000\.\.0x100081000: another .* overlaps/,
    ],
    ['number', 'a number is in use', /memslot 20 at 0x100004000\.\..*: the VM has a memslot of that number/],
    [
      'verification',
      "the verification's number is in use",
      /memslot 272 at .*: the VM has a memslot of that number/,
    ],
    [
      'tested',
      "the verification's second number is in use",
      /memslot 273 at .*: the VM has a memslot of that number/,
    ],
  ] as const)('%s: %s', { timeout: 2 * LIMIT_MS }, ([what, , message], context) => {
    Rig.open(context)[Symbol.dispose]();
    expect(outcomeOf(flavour, what)).toEqual(refusal(message));
  });

  test('beyond the guest-physical address space', { timeout: 2 * LIMIT_MS }, (context) => {
    Rig.open(context)[Symbol.dispose]();
    const {
      free: _free,
      kept: _kept,
      ...rest
    } = refusal(/memslot 16 at 0x100000000000000\.\..*: it ends beyond the guest-physical address space/);
    expect(outcomeOf(flavour, 'high')).toEqual(rest);
  });

  test('hooks whose options cannot be cloned: TypeError', { timeout: 2 * LIMIT_MS }, (context) => {
    Rig.open(context)[Symbol.dispose]();
    expect(outcomeOf(flavour, 'hooks')).toEqual({
      settled: 'rejected',
      name: 'TypeError',
      message: expect.stringMatching(/hooks\.options/) as string,
      left: 0,
      code: 0,
      free: true,
    });
  });
});
