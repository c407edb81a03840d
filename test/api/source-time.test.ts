import { describe, expect, it } from 'vitest';
import { SourceTime } from '../../src/api/source-time.js';

describe('SourceTime', () => {
  it('looks in time, or a little late: the clock', () => {
    const time = new SourceTime(100, 1000);
    expect([1100, 1150, 1350, 1500].map((clock) => time.look(clock))).toEqual([1100, 1150, 1350, 1500]);
  });

  it('a pause of any length: counts as one interval, each anew', () => {
    const time = new SourceTime(100, 0);
    expect([time.look(100), time.look(60_000), time.look(60_100), time.look(99_000)]).toEqual([
      100, 200, 300, 400,
    ]);
  });

  it('a time without looks meant to come: counts in full', () => {
    const time = new SourceTime(100, 0);
    expect([time.begin(5000), time.look(5100)]).toEqual([5000, 5100]);
  });

  it('next look: after an interval, or when something is due, by the clock', () => {
    const time = new SourceTime(100, 0);
    time.look(10_000); // a pause of 9900 ms
    expect([time.nextLook(150), time.nextLook(Infinity)]).toEqual([10_050, 10_100]);
  });
});
