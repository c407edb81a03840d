import { describe, expect, it } from 'vitest';
import { setUp } from './engine-world.js';

const told = (answer: string, address = 5): object => ({
  kind: 'outside-fault',
  fault: { kind: 'missing', address, write: false, thread: undefined },
  answer,
});

describe('a fault outside the layout', () => {
  it('by default: refused, reported, counted, and nothing else is changed', () => {
    const { resolver, port, events, counters } = setUp();
    port.outside(5);
    port.fault(8);
    resolver.turn('none');
    expect(port.log).toEqual(['poison at 5: installed', 'copy 8+4']);
    expect(events).toEqual([told('refused')]);
    expect(counters.get('outsideFaults')).toBe(1);
    expect(counters.get('missingFaults')).toBe(1);
  });

  it('by policy: answered with zeros, or refused and the pager stops', () => {
    const zeros = setUp({ onOutsideFault: 'zeros' });
    zeros.port.outside(5);
    zeros.resolver.turn('none');
    expect([zeros.port.log, zeros.events]).toEqual([['zeros at 5: installed'], [told('zeros')]]);

    const { resolver, port, events } = setUp({ onOutsideFault: 'stop' });
    port.outside(5);
    resolver.turn('none');
    port.outside(6);
    resolver.turn('none');
    expect(port.log).toEqual(['poison at 5: installed', 'poison 0+64', 'poison at 6: installed']);
    expect(events).toMatchObject([
      told('refused'),
      { kind: 'stopped', error: { code: 'BAD_RANGE' }, waiters: 'poisoned' },
      { kind: 'poisoned' },
      told('refused', 6),
    ]);
  });

  it('while events are unread: looked up again once they were read', () => {
    const { resolver, port, events } = setUp({ faultAroundPages: 1 });
    port.outcomes = ['again', 'again'];
    port.outside(5);
    resolver.turn('none');
    expect(resolver.busy).toBe(true); // it must not fall asleep over it
    resolver.turn('none');
    port.found.set(5, 9); // the move was read: the address is page 9's
    resolver.turn('none');
    expect(port.log).toEqual(['poison at 5: again', 'poison at 5: again', 'copy 9+1']);
    expect(events).toEqual([]);
  });

  it('that the port cannot answer: the pager stops, and reports that the access waits', () => {
    const { resolver, port, events } = setUp({ onOutsideFault: 'zeros' });
    port.outcomes = ['failed'];
    port.outside(5);
    resolver.turn('none');
    expect(events.slice(0, 2)).toMatchObject([told('waits'), { kind: 'stopped', waiters: 'blocked' }]);
  });

  it('of a process that has ended: the pager stops with MEMORY_GONE', () => {
    const { resolver, port, events } = setUp();
    port.outcomes = ['gone'];
    port.outside(5);
    resolver.turn('none');
    expect(events).toMatchObject([{ kind: 'stopped', error: { code: 'MEMORY_GONE' } }]);
  });

  it('unread when the resolver ends: answered, unless the memory is left to another pager', () => {
    for (const missing of ['poison', 'zero', 'leave'] as const) {
      const { port, execute, resolver } = setUp();
      port.outside(5);
      execute({ command: 'end', missing });
      expect(resolver.ended).toBe(true);
      expect(port.log.includes('poison at 5: installed'), missing).toBe(missing !== 'leave');
    }
  });

  it('when the resolver fails: answered', () => {
    const { port, resolver } = setUp();
    port.outside(5);
    resolver.abort(new Error('a fault in the handler'));
    expect(port.log).toContain('poison at 5: installed');
  });
});
