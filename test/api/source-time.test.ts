import { describe, expect, it } from 'vitest';
import { SourceTime } from '../../src/api/source-time.js';

describe('SourceTime', () => {
  it('is the clock while looks come in time, or a little late', () => {
    const time = new SourceTime(100, 1000);
    expect([1100, 1150, 1350, 1500].map((clock) => time.look(clock))).toEqual([1100, 1150, 1350, 1500]);
  });

  it('counts a pause as one interval, however long it was, and each anew', () => {
    const time = new SourceTime(100, 0);
    expect([time.look(100), time.look(60_000), time.look(60_100), time.look(99_000)]).toEqual([
      100, 200, 300, 400,
    ]);
  });

  it('counts all of a time in which no look was meant to come', () => {
    const time = new SourceTime(100, 0);
    expect([time.begin(5000), time.look(5100)]).toEqual([5000, 5100]);
  });

  it('asks for a look after an interval, or when something is due, by the clock', () => {
    const time = new SourceTime(100, 0);
    time.look(10_000); // a pause of 9900 ms
    expect([time.nextLook(150), time.nextLook(Infinity)]).toEqual([10_050, 10_100]);
  });
});
