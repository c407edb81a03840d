import { describe, expect, it } from 'vitest';
import { setUp } from './engine-world.js';

const told = (answer: string, address = 5): object => ({
  kind: 'outside-fault',
  fault: { kind: 'missing', address, write: false, thread: undefined },
  answer,
});

describe('a fault outside the layout', () => {
  it('is refused by default, told, counted, and nothing else is touched', () => {
    const { resolver, port, notices, counters } = setUp();
    port.outside(5);
    port.fault(8);
    resolver.turn('none');
    expect(port.log).toEqual(['poison at 5: installed', 'copy 8+4']);
    expect(notices).toEqual([told('refused')]);
    expect(counters.get('outsideFaults')).toBe(1);
    expect(counters.get('missingFaults')).toBe(1);
  });

  it('is answered with zeros, or stops the pager after it was refused, as the policy says', () => {
    const zeros = setUp({ onOutsideFault: 'zeros' });
    zeros.port.outside(5);
    zeros.resolver.turn('none');
    expect([zeros.port.log, zeros.notices]).toEqual([['zeros at 5: installed'], [told('zeros')]]);

    const { resolver, port, notices } = setUp({ onOutsideFault: 'stop' });
    port.outside(5);
    resolver.turn('none');
    port.outside(6);
    resolver.turn('none');
    expect(port.log).toEqual(['poison at 5: installed', 'poison 0+64', 'poison at 6: installed']);
    expect(notices).toMatchObject([
      told('refused'),
      { kind: 'stopped', error: { code: 'BAD_RANGE' }, waiters: 'poisoned' },
      { kind: 'poisoned' },
      told('refused', 6),
    ]);
  });

  it('is looked up again once the events were read that kept it from being answered', () => {
    const { resolver, port, notices } = setUp({ faultAroundPages: 1 });
    port.outcomes = ['again', 'again'];
    port.outside(5);
    resolver.turn('none');
    expect(resolver.busy).toBe(true); // it must not fall asleep over it
    resolver.turn('none');
    port.found.set(5, 9); // the move was read: the address is page 9's
    resolver.turn('none');
    expect(port.log).toEqual(['poison at 5: again', 'poison at 5: again', 'copy 9+1']);
    expect(notices).toEqual([]);
  });

  it('that cannot be answered stops the pager, and is said to wait', () => {
    const { resolver, port, notices } = setUp({ onOutsideFault: 'zeros' });
    port.outcomes = ['failed'];
    port.outside(5);
    resolver.turn('none');
    expect(notices.slice(0, 2)).toMatchObject([told('waits'), { kind: 'stopped', waiters: 'blocked' }]);
  });

  it('of a process that has ended stops the pager: MEMORY_GONE', () => {
    const { resolver, port, notices } = setUp();
    port.outcomes = ['gone'];
    port.outside(5);
    resolver.turn('none');
    expect(notices).toMatchObject([{ kind: 'stopped', error: { code: 'MEMORY_GONE' } }]);
  });

  it('that has come unread is answered when the resolver is told to end, unless the memory is left to others', () => {
    for (const missing of ['poison', 'zero', 'leave'] as const) {
      const { port, execute, resolver } = setUp();
      port.outside(5);
      execute({ command: 'end', missing });
      expect(resolver.ended).toBe(true);
      expect(port.log.includes('poison at 5: installed'), missing).toBe(missing !== 'leave');
    }
  });

  it('is answered when the resolver fails', () => {
    const { port, resolver } = setUp();
    port.outside(5);
    resolver.abort(new Error('a fault in the handler'));
    expect(port.log).toContain('poison at 5: installed');
  });
});
