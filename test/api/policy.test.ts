import { describe, expect, it } from 'vitest';
import { completePolicy, DEFAULT_POLICY, type PagerPolicy } from '../../src/api/index.js';

describe('completePolicy', () => {
  it('a part of a policy: the rest is filled in, and the defaults stay', () => {
    expect(completePolicy()).toEqual(DEFAULT_POLICY);
    expect(completePolicy({ retries: 0, wait: 'spin' })).toEqual({
      ...DEFAULT_POLICY,
      retries: 0,
      wait: 'spin',
    });
    expect(DEFAULT_POLICY).toMatchObject({ onSourceFailure: 'stop', wait: 'block' });
  });

  it('without openTimeout_ms: as sourceTimeout_ms, and 5 s at least', () => {
    expect(completePolicy({ sourceTimeout_ms: 70_000 }).openTimeout_ms).toBe(70_000);
    expect(completePolicy({ sourceTimeout_ms: 500 }).openTimeout_ms).toBe(5000);
    expect(completePolicy({ sourceTimeout_ms: 500, openTimeout_ms: 70 }).openTimeout_ms).toBe(70);
  });

  it.each<[keyof PagerPolicy, unknown]>([
    ['faultAroundPages', 0],
    ['faultAroundPages', 12],
    ['maxInFlight', 0],
    ['maxInFlight', Infinity],
    ['maxAhead_bytes', 0],
    ['prefetchPages', -1],
    ['batchRows', 1.5],
    ['batchRows', NaN],
    ['retries', -1],
    ['retries', '3'],
    ['retryFor_ms', -1],
    ['maxRetryDelay_ms', 2 ** 31],
    ['openTimeout_ms', 0],
    ['retryDelay_ms', -5],
    ['retryDelay_ms', 2 ** 31],
    ['sourceTimeout_ms', 0],
    ['sourceTimeout_ms', 2 ** 31],
    ['maxEvents', 0],
    ['onSourceFailure', 'zero'],
    ['onFork', 'ignore'],
    ['wait', 'sleep'],
  ])('%s %s: refused, and named', (name, value) => {
    expect(() => completePolicy({ [name]: value })).toThrow(RangeError);
    expect(() => completePolicy({ [name]: value })).toThrow(name);
  });

  it('an unknown option: refused, and named', () => {
    expect(() => completePolicy({ retrys: 1 } as Partial<PagerPolicy>)).toThrow(/retrys/);
  });
});
