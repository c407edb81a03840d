import { expect, test } from 'vitest';
import { gpa, hva, type OutsideAnswer } from '../../../src/api/index.js';
import { ERRNO, makePipe, raw } from '../../../src/linux/index.js';
import { growingMemory } from '../pager/growing-memory.js';
import { Actor } from '../userfaultfd/actor.js';
import { backendOf, imageOf, memoryOf, PAGE, PAGED, pagerOver, Rig } from './rig.js';

const PAGES = 16;

test.for([
  ['refuse', -ERRNO.EFAULT, 'refused'],
  ['zeros', 1, 'zeros'],
] as const)(
  'composite: an access to memory that has grown: answered by the policy (%s)',
  async ([onOutsideFault, expected, answered], context) => {
    using rig = Rig.open(context);
    using memory = growingMemory(PAGES);
    const { address } = memory;
    const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 3 });
    const region = { ...rig.region(PAGES, PAGE, memoryOf('composite')), hva: hva(address) };
    const { pager } = await pagerOver(backend, [region], imageOf(PAGES), { policy: { onOutsideFault } });
    const answer = new Promise<OutsideAnswer>((resolve) =>
      pager.once('outside-fault', (_, given) => resolve(given)),
    );
    await using actor = await Actor.start();
    const [reader, writer] = makePipe();
    expect(await actor.call('write', writer, address - PAGE, 1)).toBe(expected);
    for (const end of [reader, writer]) raw.close(end);
    expect(pager.memory!.readBlocking(gpa(PAGED + 9 * PAGE), 8).length).toBe(8);
    expect(await answer).toBe(answered);
    expect(pager.stopped).toBe(undefined);
    await pager.close();
  },
);

test('composite: addRegions and removeRegions: NOT_SUPPORTED', async (context) => {
  using rig = Rig.open(context);
  const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 3 });
  const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
  expect(pager.supports.changeRegions).toBe(false);
  const ranges = pager.layout.regions.map(({ gpa: start, length }) => ({ start, length }));
  const refused = { code: 'NOT_SUPPORTED' };
  await expect(pager.addRegions([rig.region(PAGES)])).rejects.toMatchObject(refused);
  await expect(pager.removeRegions(ranges)).rejects.toMatchObject(refused);
  await pager.close();
});
