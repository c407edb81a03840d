import { afterEach, expect, test, vi } from 'vitest';
import { ExitBoard } from '../../src/kvm/exit-board.js';
import { openVcpuGate } from '../../src/kvm/gate.js';
import { type SlotRegion } from '../../src/kvm/slot-region.js';
import { ERRNO, EventFd, KVM_EXIT, type KvmRun } from '../../src/linux/index.js';

const PAGE = 4096;
const GPA = 0x20_0000;
const REGION: SlotRegion = {
  page: 0,
  count: 8,
  pageSize: PAGE,
  chunk: 1,
  gpa: GPA,
  address: 0,
  whileMissing: 0,
  guestMemfd: -1,
  guestMemfdOffset: 0,
};

afterEach(() => void vi.restoreAllMocks());

/** Runs a fault on page 3 through a gate, with something that happens just before the letter is posted. */
function faultWith(meanwhile: (board: ExitBoard) => void): string {
  using doorbell = EventFd.create();
  const board = ExitBoard.create(8, 1);
  board.mark('filled', 0, 8, true);
  const token = {
    board: board.token,
    regions: [REGION],
    doorbell: doorbell.fd,
    vcpu: 0,
    exitFlag: 0,
    mmio: false,
  };
  const gate = openVcpuGate(token, 1);
  const { post, awaitAnswer } = ExitBoard.prototype;
  vi.spyOn(ExitBoard.prototype, 'post').mockImplementation(function (this: ExitBoard, ...letter) {
    meanwhile(board);
    post.apply(this, letter);
  });
  // It would wait for ever on this thread.
  vi.spyOn(ExitBoard.prototype, 'awaitAnswer').mockImplementation(function (this: ExitBoard, vcpu) {
    if (board.waitsFor(vcpu) >= 0) throw new Error('nobody is left to answer');
    return awaitAnswer.call(this, vcpu);
  });
  const run = { exitReason: KVM_EXIT.MEMORY_FAULT, faultFlags: 0, faultGpa: GPA + 3 * PAGE };
  try {
    return gate.onExit(run as unknown as KvmRun, ERRNO.EFAULT);
  } finally {
    gate.close();
  }
}

test('a page that is shown while its letter is written is seen', () => {
  expect(faultWith((board) => board.mark('live', 3, 1, true))).toBe('again');
});

test('a page that is dropped while its letter is written is asked for anew', () => {
  // Its drop has ended: whoever ends it answers the letters that are there.
  expect(faultWith((board) => board.mark('filled', 3, 1, false))).toBe('again');
});

test('a page that stays as it is waits for the slot thread', () => {
  expect(() => faultWith(() => {})).toThrow('nobody is left');
});
