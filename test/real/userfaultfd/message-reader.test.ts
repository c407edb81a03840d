import { describe, expect, test } from 'vitest';
import { FaultBatch } from '../../../src/api/index.js';
import { AddressMap } from '../../../src/backends/userfaultfd/address-map.js';
import { MessageReader } from '../../../src/backends/userfaultfd/message-reader.js';
import { decodeUffdEvent, ERRNO, UFFD_EVENT, UffdPort } from '../../../src/linux/index.js';
import { rows } from './scene.js';

const PAGE = 4096;
const START = 0x7f00_0000_0000;

/** A userfaultfd that says what it is told to, in the kernel's bytes. */
function scripted(...messages: readonly (readonly bigint[])[]): UffdPort {
  const words = new Uint32Array(messages.length * 8);
  const wide = new BigUint64Array(words.buffer);
  let left = messages.map((message) => message);
  const port = {
    wake: () => 0,
    batch: 4,
    messages: words,
    receive: UffdPort.prototype.receive,
    read: (most: number) => {
      if (left.length === 0) return -ERRNO.EAGAIN;
      const now = left.slice(0, most);
      left = left.slice(most);
      now.forEach((message, i) => wide.set([...message, 0n, 0n, 0n, 0n].slice(0, 4), i * 4));
      return now.length;
    },
    event: (index: number) => decodeUffdEvent(words, index),
  };
  return port as unknown as UffdPort;
}

const fault = (address: number, flags = 0n, thread = 0n): bigint[] => [
  BigInt(UFFD_EVENT.PAGEFAULT),
  flags,
  BigInt(address),
  thread,
];

function reader(uffd: UffdPort, threadIds = true): MessageReader {
  const segment = {
    page: 10,
    count: 8,
    start: START,
    pageSize: PAGE,
    memory: 'anonymous',
    verbs: 0,
    fd: -1,
    fileOffset: 0,
  } as const;
  return new MessageReader(uffd, new AddressMap([segment]), threadIds);
}

describe('the message reader', () => {
  test('decodes every kind of fault', () => {
    const batch = new FaultBatch(8);
    const uffd = scripted(
      fault(START + 5, 0n, 42n),
      fault(START + PAGE, 1n),
      fault(START + 2 * PAGE, 2n | 1n),
      fault(START + 3 * PAGE, 4n),
      fault(START + 8 * PAGE - 1, 8n | 1n),
    );
    expect(reader(uffd).drain(batch)).toBe(5);
    expect(rows(batch)).toMatchObject([
      { kind: 'missing', page: 10, write: false, thread: 42 },
      { kind: 'missing', page: 11, write: true, thread: 0 },
      { kind: 'write-protect', page: 12, write: true },
      { kind: 'minor', page: 13, write: false },
      { kind: 'rwp', page: 17, write: true },
    ]);
  });

  test('without THREAD_ID no thread is claimed', () => {
    const batch = new FaultBatch(1);
    reader(scripted(fault(START)), false).drain(batch);
    expect(rows(batch)).toMatchObject([{ thread: undefined }]);
  });

  test('takes no more than fits', () => {
    const uffd = scripted(...[0, 1, 2, 3, 4, 5].map((page) => fault(START + page * PAGE)));
    const from = reader(uffd);
    const batch = new FaultBatch(5);
    expect(from.drain(batch)).toBe(5);
    expect(from.drain(batch)).toBe(0);
    batch.clear();
    expect(from.drain(batch)).toBe(1);
    expect(batch.page[0]).toBe(15);
  });

  test('an event of a kind it does not know is UNKNOWN_EVENT', () => {
    const known = expect.objectContaining({
      code: 'UNKNOWN_EVENT',
      message: expect.stringContaining('0x99') as string,
    }) as Error;
    expect(() => reader(scripted([0x99n])).drain(new FaultBatch(4))).toThrow(known);
  });

  test('a fault outside the regions is told by its address, among the others', () => {
    const batch = new FaultBatch(4);
    const address = 2 ** 46 + 8 * PAGE;
    reader(scripted(fault(START), fault(address, 1n, 42n), fault(START + PAGE))).drain(batch);
    expect([0, 1, 2].map((row) => batch.isOutside(row))).toEqual([false, true, false]);
    expect(batch.outside(1)).toEqual({ kind: 'missing', address, write: true, thread: 42 });
  });

  test('a failing read is an error by its name', () => {
    const uffd = { ...scripted(), read: () => -ERRNO.EBADF } as unknown as UffdPort;
    expect(() => reader(uffd).drain(new FaultBatch(1))).toThrow(
      expect.objectContaining({ code: 'CLOSED', errno: ERRNO.EBADF }),
    );
  });
});
