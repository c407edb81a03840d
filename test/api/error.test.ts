import { describe, expect, it } from 'vitest';
import { asDemandPagingError, DemandPagingError, errnoName } from '../../src/api/index.js';

/** As it goes to another isolate and back. */
const crossed = (error: DemandPagingError): DemandPagingError =>
  DemandPagingError.fromPlain(structuredClone(error.toPlain()));

describe('DemandPagingError', () => {
  it('has what failed, where, and a hint', () => {
    const error = new DemandPagingError('NO_PERMISSION', 'no userfaultfd', {
      errno: 1,
      syscall: 'userfaultfd',
      hint: 'Run as root',
    });
    expect(error.message).toBe('no userfaultfd [userfaultfd: EPERM]. Run as root');
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe('DemandPagingError');
  });

  it('sent to another isolate: nothing is lost', () => {
    const error = new DemandPagingError('KERNEL', 'a page cannot be poisoned', {
      errno: 22,
      syscall: 'ioctl UFFDIO_POISON',
      range: { start: 1n << 40n, length: 4096n },
      hint: 'See errno',
    });
    const again = crossed(error);
    expect(again).toBeInstanceOf(DemandPagingError);
    for (const part of ['code', 'message', 'errno', 'syscall', 'range', 'hint', 'cause'] as const)
      expect(again[part], part).toEqual(error[part]);
  });

  it('sent twice: its message stays the same', () => {
    const error = new DemandPagingError('KERNEL', 'it failed', { errno: 22, syscall: 'poll', hint: 'Wait' });
    expect(crossed(crossed(error)).message).toBe(error.message);
  });

  it("sent with causes: its own kind whole, at any depth; others with their stack and Node's members", () => {
    const file = Object.assign(new TypeError('the file'), { code: 'ENOENT', cause: new Error('the disk') });
    const root = new DemandPagingError('SOURCE_LENGTH', 'too short', { cause: file });
    const middle = new DemandPagingError('PAGE_FAILED', 'not to be had', { cause: root });
    const again = crossed(new DemandPagingError('STOPPED', 'stopped', { cause: middle }));
    const first = again.cause as DemandPagingError;
    const second = first.cause as DemandPagingError;
    expect([first, second].map((cause) => cause instanceof DemandPagingError && cause.code)).toEqual([
      'PAGE_FAILED',
      'SOURCE_LENGTH',
    ]);
    expect(second.cause).toBeInstanceOf(Error);
    expect(second.cause).toMatchObject({ name: 'TypeError', message: 'the file', code: 'ENOENT' });
    expect((second.cause as Error).cause).toMatchObject({ message: 'the disk' });
    expect(second.stack).toBe(root.stack);
    expect((second.cause as Error).stack).toBe(file.stack);
  });

  it('sent without a cause: has none', () => {
    expect('cause' in crossed(new DemandPagingError('CLOSED', 'closed'))).toBe(false);
  });

  it('sent with a cause that cannot be cloned: the cause is its text', () => {
    const error = new DemandPagingError('SOURCE_FAILED', 'it threw', { cause: () => 'a function' });
    expect(typeof crossed(error).cause).toBe('string');
  });
});

describe('asDemandPagingError', () => {
  it('of a DemandPagingError: the same error', () => {
    const error = new DemandPagingError('CLOSED', 'closed');
    expect(asDemandPagingError(error, 'KERNEL', 'anything')).toBe(error);
  });

  it.each([
    [new Error('EIO'), 'the source failed: EIO'],
    ['a string', 'the source failed: a string'],
    [undefined, 'the source failed: undefined'],
  ])('of %s: a DemandPagingError with its reason in the message', (thrown, message) => {
    const error = asDemandPagingError(thrown, 'SOURCE_FAILED', 'the source failed');
    expect([error.code, error.message, error.cause]).toEqual(['SOURCE_FAILED', message, thrown]);
  });
});

describe('errnoName', () => {
  it('names what Node’s table lacks, prefers the usual name, and never throws', () => {
    expect([11, 17, 133, 4095].map(errnoName)).toEqual(['EAGAIN', 'EEXIST', 'EHWPOISON', 'errno 4095']);
  });
});
