import { describe, expect, it } from 'vitest';
import { completePolicy, DEFAULT_POLICY, type PagerPolicy } from '../../src/api/index.js';

describe('completePolicy', () => {
  it('fills in what is not given, and leaves the defaults alone', () => {
    expect(completePolicy()).toEqual(DEFAULT_POLICY);
    expect(completePolicy({ retries: 0, wait: 'spin' })).toEqual({
      ...DEFAULT_POLICY,
      retries: 0,
      wait: 'spin',
    });
    expect(DEFAULT_POLICY).toMatchObject({ onSourceFailure: 'stop', wait: 'block' });
  });

  it('grants opening what a fetch is granted, 5 s at least, unless it is said', () => {
    expect(completePolicy({ sourceTimeoutMs: 70_000 }).openTimeoutMs).toBe(70_000);
    expect(completePolicy({ sourceTimeoutMs: 500 }).openTimeoutMs).toBe(5000);
    expect(completePolicy({ sourceTimeoutMs: 500, openTimeoutMs: 70 }).openTimeoutMs).toBe(70);
  });

  it.each<[keyof PagerPolicy, unknown]>([
    ['faultAroundPages', 0],
    ['faultAroundPages', 12],
    ['maxInFlight', 0],
    ['maxInFlight', Infinity],
    ['maxAheadBytes', 0],
    ['prefetchPages', -1],
    ['batchRows', 1.5],
    ['batchRows', NaN],
    ['retries', -1],
    ['retries', '3'],
    ['retryForMs', -1],
    ['maxRetryDelayMs', 2 ** 31],
    ['openTimeoutMs', 0],
    ['retryDelayMs', -5],
    ['retryDelayMs', 2 ** 31],
    ['sourceTimeoutMs', 0],
    ['sourceTimeoutMs', 2 ** 31],
    ['maxNotices', 0],
    ['onSourceFailure', 'zero'],
    ['onFork', 'ignore'],
    ['wait', 'sleep'],
  ])('refuses %s %s, naming it', (name, value) => {
    expect(() => completePolicy({ [name]: value })).toThrow(RangeError);
    expect(() => completePolicy({ [name]: value })).toThrow(name);
  });

  it('refuses an option that does not exist, naming it', () => {
    expect(() => completePolicy({ retrys: 1 } as Partial<PagerPolicy>)).toThrow(/retrys/);
  });
});
