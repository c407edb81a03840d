import { describe, expect, test } from 'vitest';
import { checkProperties, failsText, PROPERTIES } from 'demand-paging/conformance';
import { blocking, type ModelMechanism, watchedSites } from 'demand-paging/backends/memory';
import { modelSubject } from '../conformance/model-subject.js';
import { ModelWorld } from './model-world.js';

/**
 * A presence of its own for vCPUs, beside the page table: a bitmap, set after a page's contents are in place
 * and cleared when the page goes. Two mechanisms have to open before a vCPU passes.
 */
function bitmap(): ModelMechanism {
  const present = new Set<number>();
  return {
    name: 'bitmap',
    effect: 'exits',
    address: 'exact',
    obstacle: (access, { memory }) => {
      // What is poisoned or unmapped never becomes present: whoever waited for that would wait for ever.
      const table = memory.obstacle(access.page, access.write);
      if (typeof table === 'number') return table;
      return present.has(access.page) ? undefined : 'missing';
    },
    stop: (access, kind) => access.exit(kind),
    installed: (page) => void present.add(page),
    discarded: (page) => void present.delete(page),
  };
}

const sites = () => {
  const uffd = blocking();
  const vcpu = bitmap();
  const watched = watchedSites(() => uffd);
  const names = Object.keys(watched) as (keyof typeof watched)[];
  return Object.fromEntries(names.map((site) => [site, site.startsWith('vcpu-') ? [vcpu, uffd] : [uffd]]));
};

describe('a mechanism with a presence of its own', () => {
  test('exits for its sites, waits for the others, and opens when the page is installed', async () => {
    const world = await ModelWorld.attach(4, { sites: sites() });
    const vcpu = world.read(1, 'vcpu-load');
    const kernel = world.read(1, 'kernel-copy');
    expect([vcpu.exits, kernel.exits, vcpu.state, kernel.state]).toEqual([1, 0, 'blocked', 'blocked']);
    expect(world.take()).toEqual(['missing 1', 'missing 1']);
    expect(world.batch.fault(0)).toMatchObject({ site: 'vcpu-load', vcpu: 0 });
    expect(world.batch.fault(1)).toMatchObject({ site: undefined, vcpu: undefined });
    world.copy(1, 6);
    world.run(vcpu);
    world.run(kernel);
    expect([vcpu.bytes[0], kernel.bytes[0]]).toEqual([6, 6]);
  });

  test('a page that came between the exit and the wait is not waited for', async () => {
    const world = await ModelWorld.attach(4, { sites: sites() });
    const vcpu = world.kernel.access({ site: 'vcpu-load', page: 0, length: 1 });
    vcpu.step();
    expect(vcpu.state).toBe('exited');
    world.copy(0, 3);
    world.run(vcpu);
    expect([vcpu.state, vcpu.bytes[0]]).toEqual(['done', 3]);
  });

  test('keeps every property of the suite', async () => {
    // Made anew for each attachment: presence belongs to a memory.
    const backend = () => modelSubject('', { sites: sites() }).backend();
    const subject = { ...modelSubject('a bitmap before vCPUs'), backend };
    const results = await checkProperties(PROPERTIES, subject, { runs: 100 });
    expect(results.flatMap((result) => (result.outcome === 'fails' ? [failsText(result)] : []))).toEqual([]);
    expect(results.filter(({ outcome }) => outcome === 'holds').length).toBeGreaterThan(20);
  });
});
