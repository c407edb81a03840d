import { MessageChannel } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { gpa, openPager, type PortSourceRef, type SourceRequest } from '../../../src/api/index.js';
import { backendOf, ENTRY, imageOf, LOW, PAGE, PAGED, PAGED_PAGE, PORT, Rig } from './rig.js';

const PAGES = 32;

/** A source that gives every page at once, but keeps back those it is told to. */
class HeldSource {
  readonly ref: PortSourceRef;
  readonly #bytes: Uint8Array;
  readonly #port;
  readonly #held = new Map<
    number,
    { readonly asked: Promise<void>; arrived: () => void; give: () => void }
  >();

  constructor(image: SharedArrayBuffer) {
    const { port1, port2 } = new MessageChannel();
    this.#bytes = new Uint8Array(image);
    this.#port = port1;
    this.ref = { port: port2, length: image.byteLength, servedHere: true };
    port1.on('message', ({ id, offset, length }: SourceRequest) => {
      const give = (): void => port1.postMessage({ id, bytes: this.#bytes.slice(offset, offset + length) });
      const held = this.#held.get(offset / PAGE);
      if (!held) return give();
      held.give = give;
      held.arrived();
    });
  }

  /** Keeps a page back; resolves when it is asked for. */
  hold(page: number): Promise<void> {
    let arrived = (): void => {};
    const asked = new Promise<void>((resolve) => (arrived = resolve));
    this.#held.set(page, { asked, arrived, give: () => {} });
    return asked;
  }

  release(page: number): void {
    const held = this.#held.get(page)!;
    this.#held.delete(page);
    held.give();
  }

  close(): void {
    this.#port.close();
  }
}

test('slot-op-never-blocks-resolver: while an access of KVM waits, slots wait, and pages go on coming', async (context) => {
  using rig = Rig.open(context);
  const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 2 });
  const source = new HeldSource(imageOf(PAGES));
  const needs = ['vcpu', 'kernel', 'vmm'] as const;
  const policy = { faultAroundPages: 1 };
  const pager = await openPager({ backend, regions: [rig.region(PAGES)], source: source.ref, needs, policy });
  const page = (index: number): number => PAGED + (PAGED_PAGE.data + index) * PAGE;

  // An ioctl that the gates know nothing of walks page tables whose first page does not come.
  const askedForTables = source.hold(PAGED_PAGE.tables);
  const walker = rig.vcpu(ENTRY.done, {}, { code: LOW.code, tables: PAGED });
  const walk = await rig.start<{ valid: boolean; gpa: bigint }>(
    { kind: 'translate', linear: 0x5000n },
    walker,
  );
  await askedForTables;

  // A vCPU's page comes, but not its slot: KVM waits for the walk to end.
  const vcpu = rig.vcpu(ENTRY.load, { rdi: BigInt(page(0)) });
  const run = await rig.run(vcpu, backend.gate(1));
  let running = true;
  void run.result.then(() => (running = false));
  const present = (at: number): boolean => pager.memory!.isPresent({ start: gpa(at), length: BigInt(PAGE) });
  while (!present(page(0))) await new Promise((resolve) => setImmediate(resolve));

  // Meanwhile the resolver serves everybody else.
  await pager.ensure([{ start: gpa(page(1)), length: BigInt(4 * PAGE) }]);
  const touch = await rig.start<{ value: bigint }>({
    kind: 'syscall',
    address: Number(pager.layout.hvaOf(PAGED_PAGE.data + 8)),
  });
  expect((await touch.result).value).toBe(BigInt(page(8)));
  expect(running, 'the slot changed under an access of KVM').toBe(true);

  source.release(PAGED_PAGE.tables);
  expect(await walk.result).toMatchObject({ valid: true, gpa: 0x5000n });
  expect(await run.result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, rax: BigInt(page(0)) });
  await pager.close({ missing: 'leave' });
  source.close();
});

test('memory removed while a vCPU waits for it comes as zeros', async (context) => {
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
  const { result } = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(at) }), backend.gate(0));
  await asked;
  await pager.remove([{ start: gpa(at), length: BigInt(PAGE) }]);
  expect(await result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, rax: 0n });
  source.release(PAGED_PAGE.data); // too late: it must not come back
  expect([...(await pager.memory!.read(gpa(at), 8))]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  await pager.close({ missing: 'leave' });
  source.close();
});
