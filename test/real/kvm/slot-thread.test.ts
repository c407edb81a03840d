import { expect, test } from 'vitest';
import { gpa, openPager } from '../../../src/api/index.js';
import { HeldSource } from './held-source.js';
import { backendOf, ENTRY, imageOf, LOW, PAGE, PAGED, PAGED_PAGE, PORT, Rig } from './rig.js';

const PAGES = 32;

test('slot-op-never-blocks-resolver: an access of KVM waits: memslot updates wait, pages still arrive', async (context) => {
  using rig = Rig.open(context);
  const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 2 });
  const source = new HeldSource(imageOf(PAGES));
  const needs = ['vcpu', 'kernel', 'vmm'] as const;
  const policy = { faultAroundPages: 1 };
  const pager = await openPager({ backend, regions: [rig.region(PAGES)], source: source.ref, needs, policy });
  const page = (index: number): number => PAGED + (PAGED_PAGE.data + index) * PAGE;

  // An ioctl outside every exit handler walks page tables whose first page does not arrive.
  const askedForTables = source.hold(PAGED_PAGE.tables);
  const walker = rig.vcpu(ENTRY.done, {}, { code: LOW.code, tables: PAGED });
  const walk = await rig.start<{ valid: boolean; gpa: bigint }>(
    { kind: 'translate', linear: 0x5000n },
    walker,
  );
  await askedForTables;

  // A vCPU's page comes, but not its slot: KVM waits for the walk to end.
  const vcpu = rig.vcpu(ENTRY.load, { rdi: BigInt(page(0)) });
  const run = await rig.run(vcpu, backend.exitHandlerToken(1));
  let running = true;
  void run.result.then(() => (running = false));
  const present = (at: number): boolean => pager.memory!.isPresent({ start: gpa(at), length: BigInt(PAGE) });
  while (!present(page(0))) await new Promise((resolve) => setImmediate(resolve));

  // A thread that changes a memslot now waits for the page that does not arrive: a resolver that did would
  // wait for itself.
  const slot = { slot: 3, gpa: 0x8000_0000, length: PAGE, userspace: rig.low.address };
  const careless = await rig.start<number>({ kind: 'slot', vm: rig.vm.fd, slot });
  let changed = false;
  void careless.result.then(() => (changed = true));

  // Meanwhile the resolver serves all other accessors.
  await pager.ensure([{ start: gpa(page(1)), length: BigInt(4 * PAGE) }]);
  const touch = await rig.start<{ value: bigint }>({
    kind: 'syscall',
    address: Number(pager.layout.hvaOf(PAGED_PAGE.data + 8)),
  });
  expect((await touch.result).value).toBe(BigInt(page(8)));
  expect(running, 'the slot changed under an access of KVM').toBe(true);
  expect(changed, 'a slot operation did not wait for an access of KVM').toBe(false);

  source.release(PAGED_PAGE.tables);
  expect(await walk.result).toMatchObject({ valid: true, gpa: 0x5000n });
  expect(await run.result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, rax: BigInt(page(0)) });
  expect(await careless.result).toBe(0);
  await pager.close({ missing: 'leave' });
  source.close();
});

test('pages removed while a vCPU waits for one: it reads zeros', async (context) => {
  using rig = Rig.open(context);
  const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 1 });
  const source = new HeldSource(imageOf(PAGES));
  const pager = await openPager({
    backend,
    regions: [rig.region(PAGES)],
    source: source.ref,
    needs: ['vcpu'],
    policy: { faultAroundPages: 1 },
  });
  const at = PAGED + PAGED_PAGE.data * PAGE;
  const asked = source.hold(PAGED_PAGE.data);
  const { result } = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(at) }), backend.exitHandlerToken(0));
  await asked;
  await pager.discard([{ start: gpa(at), length: BigInt(PAGE) }], { then: 'zero' });
  expect(await result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, rax: 0n });
  source.release(PAGED_PAGE.data); // too late: it must not come back
  expect([...(await pager.memory!.read(gpa(at), 8))]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  await pager.close({ missing: 'leave' });
  source.close();
});
