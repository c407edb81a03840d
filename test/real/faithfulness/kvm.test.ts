import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type AccessSite } from '../../../src/api/index.js';
import { REPLAY, RUNS_FACTOR } from '../../conformance/runs.js';
import { ENTRY, Rig } from '../kvm/rig.js';
import { difference, histories } from './kvm-history.js';
import { SlotsWorld } from './slots-world.js';
import { UapiWorld } from './uapi-world.js';

const RUNS = 200;
/**
 * Walks are left out: which of two ways they go depends on whether the processor translates in two stages,
 * and the coverage tests have both.
 */
const SITES: readonly AccessSite[] = [
  'vcpu-load',
  'vcpu-store',
  'vcpu-atomic',
  'vcpu-fetch',
  'kernel-copy',
  'vmm-load',
  'vmm-store',
];

test.for(['vacated-slot', 'memslot-hole'] as const)(
  'the model of a %s does what this KVM does',
  { timeout: 120_000 * RUNS_FACTOR },
  async (strategy, context) => {
    using rig = Rig.open(context);
    const vcpu = rig.vcpu(ENTRY.load);
    await fc.assert(
      fc.asyncProperty(histories(SITES), async (history) => {
        const model = await UapiWorld.open(strategy);
        const machine = new SlotsWorld(rig, vcpu, strategy);
        expect(await difference(model, machine, history)).toBeUndefined();
      }),
      { numRuns: RUNS * RUNS_FACTOR, ...REPLAY },
    );
  },
);
