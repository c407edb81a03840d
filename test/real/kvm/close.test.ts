import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { expect, test } from 'vitest';
import { MemoryLayout } from '../../../src/api/index.js';
import { mapMemory } from '../../../src/linux/index.js';
import {
  backendOf,
  ENTRY,
  type Flavour,
  imageOf,
  memoryOf,
  PAGE,
  PAGED,
  PAGED_PAGE,
  pagerOver,
  PORT,
  Rig,
} from './rig.js';

const PAGES = 16;
const FLAVOURS: readonly Flavour[] = ['kvm-exit', 'composite', 'guest-memfd'];

/** Descriptors of this process by what they are, without those that come and go by themselves. */
function descriptors(): string[] {
  const ours = /userfaultfd|eventfd|kvm|memfd/;
  return readdirSync('/proc/self/fd')
    .flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        return []; // the folder's own
      }
    })
    .filter((what) => ours.test(what))
    .sort();
}

const mappings = (): string[] =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => /kvm|guest_memfd|memfd|userfaultfd/.test(line));

test.for(FLAVOURS)(
  '%s: close, at once or after use: no descriptor and no mapping is left',
  async (flavour, context) => {
    using rig = Rig.open(context);
    const attach = async (): Promise<void> => {
      const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1 });
      const attachment = await backend.attach(new MemoryLayout([rig.region(PAGES, PAGE, memoryOf(flavour))]));
      await attachment.close();
      await attachment.close();
    };
    await attach(); // whatever is made once
    const before = { descriptors: descriptors(), mappings: mappings() };
    for (let time = 0; time < 3; time++) await attach();
    expect({ descriptors: descriptors(), mappings: mappings() }).toEqual(before);
    // The guest-physical range is free again.
    rig.vm.setSlot({ slot: 3, gpa: PAGED, length: PAGES * PAGE, userspace: rig.low.address });
  },
);

test.for(['kvm-exit', 'composite'] as const)(
  '%s: close with memory of the VMM: present pages stay mapped for the guest',
  async (flavour, context) => {
    using rig = Rig.open(context);
    using memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
    const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [{ ...rig.region(PAGES), hva: memory.hva }], imageOf(PAGES));
    await pager.close({ missing: 'populate' });
    const data = PAGED + PAGED_PAGE.data * PAGE;
    const { result } = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(data) }), undefined);
    expect(await result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, rax: BigInt(data) });
  },
);
