import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import {
  acceptFrom,
  closeDescriptor,
  connectTo,
  copyMemory,
  duplicate,
  ERRNO,
  isCloseOnExec,
  listenAt,
  makePipe,
  mapMemory,
  NativeBlock,
  openDescriptor,
  openProcess,
  O,
  pageSize,
  peerCredentials,
  Poller,
  raw,
  readMemory,
  receiveWithDescriptors,
  sendWithDescriptors,
  setCloseOnExec,
  setNonBlocking,
  socketPair,
  takeDescriptor,
  threadId,
} from '../../src/linux/index.js';

const PAGE = pageSize();

describe('descriptors', () => {
  test('a pipe carries bytes and knows its flags', () => {
    const [reader, writer] = makePipe();
    using block = new NativeBlock(16);
    block.bytes.set([1, 2, 3]);
    expect(raw.write(writer, block.address, 3)).toBe(3);
    expect(raw.read(reader, block.address + 8, 8)).toBe(3);
    expect([...block.bytes.subarray(8, 11)]).toEqual([1, 2, 3]);
    expect(isCloseOnExec(reader)).toBe(true);
    setCloseOnExec(reader, false);
    expect(isCloseOnExec(reader)).toBe(false);
    setNonBlocking(reader, true);
    expect(raw.read(reader, block.address, 1)).toBe(-ERRNO.EAGAIN);
    closeDescriptor(writer);
    const copy = duplicate(reader);
    expect(isCloseOnExec(copy)).toBe(true);
    closeDescriptor(reader);
    expect(raw.read(copy, block.address, 1), 'end of file').toBe(0);
    closeDescriptor(copy);
    expect(() => closeDescriptor(copy)).toThrow(
      expect.objectContaining({ code: 'KERNEL', errno: ERRNO.EBADF }),
    );
  });

  test('pread and pwrite reach mapped memory, and say EFAULT where there is none', () => {
    using file = mapMemory({ kind: 'shmem', length: 2 * PAGE });
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    using hole = mapMemory({ kind: 'reserved', length: PAGE });
    memory.bytes().fill(0x17);
    expect(raw.pwrite(file.fd!, memory.address, PAGE, PAGE)).toBe(PAGE);
    expect(file.bytes(PAGE - 1, 2)).toEqual(Uint8Array.of(0, 0x17));
    expect(raw.pread(file.fd!, memory.address, PAGE, 0)).toBe(PAGE);
    expect(memory.bytes()[0]).toBe(0);
    expect(raw.pread(file.fd!, hole.address, PAGE, 0)).toBe(-ERRNO.EFAULT);
  });

  test('a device that is not there is NO_DEVICE, with what to do about a known one', () => {
    const missing = (): unknown => openDescriptor('/dev/no-such-device', O.RDWR);
    expect(missing).toThrow(
      expect.objectContaining({ code: 'NO_DEVICE', errno: ERRNO.ENOENT, syscall: 'open' }),
    );
  });

  test('a read that cannot be had stops short or fails, and never crashes', () => {
    using memory = mapMemory({ kind: 'reserved', length: 2 * PAGE });
    using into = mapMemory({ kind: 'anonymous', length: 2 * PAGE });
    memory.protect(3, 0, PAGE);
    expect(readMemory(into.address, memory.address + PAGE - 8, 16)).toBe(8);
    expect(readMemory(into.address, memory.address + PAGE, 16)).toBe(-ERRNO.EFAULT);
  });

  test('the thread id is one of this process', () => {
    expect(readdirSync('/proc/self/task').map(Number)).toContain(threadId());
  });
});

describe('descriptor passing', () => {
  test('a memory file crosses a socket with its bytes', () => {
    const [left, right] = socketPair();
    using memory = mapMemory({ kind: 'shmem', length: PAGE });
    memory.bytes()[9] = 0x99;
    expect(sendWithDescriptors(left, Buffer.from('hello'), [memory.fd!, left])).toBe(5);
    const { bytes, fds } = receiveWithDescriptors(right);
    expect(Buffer.from(bytes).toString()).toBe('hello');
    expect(fds).toHaveLength(2);
    for (const fd of fds) expect(isCloseOnExec(fd)).toBe(true);
    using received = mapMemory({ kind: 'file', length: PAGE, fd: fds[0]! });
    expect(received.bytes()[9]).toBe(0x99);
    for (const fd of [left, right, fds[1]!]) closeDescriptor(fd);
  });

  test('more descriptors than were allowed for are closed, not leaked', () => {
    const [left, right] = socketPair();
    sendWithDescriptors(left, Uint8Array.of(1), [left, left, left]);
    const before = duplicate(left);
    closeDescriptor(before);
    expect(() => receiveWithDescriptors(right, 16, 1)).toThrow(expect.objectContaining({ code: 'KERNEL' }));
    const after = duplicate(left);
    expect(after, 'the lowest free number is free again').toBe(before);
    for (const fd of [left, right, after]) closeDescriptor(fd);
  });

  test('a message without descriptors and a closed peer are plain', () => {
    const [left, right] = socketPair();
    sendWithDescriptors(left, Uint8Array.of(7), []);
    expect(receiveWithDescriptors(right)).toEqual({ bytes: Uint8Array.of(7), fds: [] });
    closeDescriptor(left);
    expect(receiveWithDescriptors(right)).toEqual({ bytes: new Uint8Array(0), fds: [] });
    expect(() => sendWithDescriptors(right, Uint8Array.of(1), [])).toThrow(
      expect.objectContaining({ errno: ERRNO.EPIPE }),
    );
    closeDescriptor(right);
  });

  test('misuse is a RangeError', () => {
    expect(() => sendWithDescriptors(0, new Uint8Array(0), [0])).toThrow(RangeError);
    expect(() => connectTo('x'.repeat(108))).toThrow(RangeError);
    expect(() => connectTo('')).toThrow(RangeError);
  });

  test('listen, connect, accept; the peer is known', () => {
    const folder = mkdtempSync(join(tmpdir(), 'demand-paging-'));
    const path = join(folder, 'socket');
    try {
      expect(() => connectTo(path)).toThrow(expect.objectContaining({ code: 'NO_DEVICE' }));
      const listener = listenAt(path);
      expect(() => listenAt(path)).toThrow(expect.objectContaining({ code: 'KERNEL', errno: 98 }));
      const client = connectTo(path);
      using poller = new Poller([listener]);
      expect(poller.wait(10_000)).toBe(1);
      const server = acceptFrom(listener);
      expect(peerCredentials(server)).toEqual({
        pid: process.pid,
        uid: process.getuid!(),
        gid: process.getgid!(),
      });
      for (const fd of [client, server, listener]) closeDescriptor(fd);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('other processes', () => {
  test('a descriptor and memory can be taken from a child', async () => {
    const child = spawn(process.execPath, ['-e', "process.stdin.resume(); process.stdout.write('up')"]);
    try {
      await once(child.stdout, 'data');
      const handle = openProcess(child.pid!);
      const stdin = takeDescriptor(handle, 0);
      expect(isCloseOnExec(stdin)).toBe(true);
      expect(() => takeDescriptor(handle, 9999)).toThrow(
        expect.objectContaining({ code: 'KERNEL', errno: ERRNO.EBADF }),
      );
      closeDescriptor(stdin);
      using poller = new Poller([handle]);
      expect(poller.wait(0)).toBe(0);
      child.kill('SIGKILL');
      expect(poller.wait(10_000)).toBe(1);
      await once(child, 'exit');
      expect(() => takeDescriptor(handle, 0)).toThrow(
        expect.objectContaining({ code: 'MEMORY_GONE', errno: ERRNO.ESRCH }),
      );
      closeDescriptor(handle);
      using into = new NativeBlock(16);
      expect(readMemory(into.address, into.address, 8, child.pid!)).toBe(-ERRNO.ESRCH);
    } finally {
      child.kill('SIGKILL');
    }
  });
});

test('copyMemory copies', () => {
  using block = new NativeBlock(32);
  block.bytes.set([1, 2, 3, 4]);
  copyMemory(block.address + 16, block.address, 4);
  expect([...block.bytes.subarray(16, 20)]).toEqual([1, 2, 3, 4]);
});
