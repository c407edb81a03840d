import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  drive,
  driveRetrying,
  driveSync,
  type Gpa,
  type GpaRange,
  type ProgramMemory,
} from '../../src/api/index.js';
import { planRestore, type Mode, type Vgic } from '../../src/arm64/index.js';
import { type GuestMemory, LatencyMemory, pageOf } from './guest-memory.js';
import { anyImage } from './image-arbitrary.js';
import { buildImage, prepareVgic, stateOf, type Image } from './its-image.js';

/** Guest memory of which some pages have not come yet, or are frozen, as the drivers want it. */
class PartialMemory implements ProgramMemory {
  readonly frozen = new Set<bigint>();
  readonly present = new Set<bigint>();
  brought = 0;
  /** Called when somebody waits for a page; may thaw. */
  onWait: (() => void) | undefined;
  readonly layout: ProgramMemory['layout'];

  constructor(readonly guest: GuestMemory) {
    this.layout = { regionAt: (gpa) => (guest.visible(gpa) ? guest : undefined) };
  }

  isPresent({ start }: GpaRange): boolean {
    return this.present.has(pageOf(start)) && !this.frozen.has(pageOf(start));
  }

  readSync(address: Gpa, length: number): Uint8Array {
    return this.guest.page(address).slice(0, length);
  }

  writeSync(address: Gpa, bytes: Uint8Array): void {
    this.guest.page(address).set(bytes, Number(address - pageOf(address)));
  }

  async bring(ranges: readonly GpaRange[]): Promise<void> {
    this.onWait?.();
    for (const { start } of ranges) {
      this.brought++;
      this.present.add(pageOf(start));
      this.frozen.delete(pageOf(start)); // waited for until it was thawed
    }
  }

  hint(): void {}

  /** The "mandate" policy: everything is moved before anything is resumed. */
  moveEverything(): number {
    for (const page of this.guest.pages.keys()) this.present.add(page);
    for (const { start, bytes } of this.guest.slots) {
      for (let page = start; page < start + bytes && page < start + 0x100_0000n; page += 4096n)
        this.present.add(page);
    }
    return this.present.size;
  }
}

type Policy = 'block' | 'error-then-retry' | 'freeze' | 'mandate' | 'plan';

interface Result {
  readonly status: number;
  readonly state: unknown;
  readonly guest: GuestMemory;
  /** Pages waited for while the operation ran: under a real KVM, with the VM's locks held. */
  readonly waits: number;
  readonly moved: number;
}

async function restoreUnder(policy: Policy, mode: Mode, image: Image, forwarding = false): Promise<Result> {
  const { memory: guest } = buildImage(image);
  const vgic: Vgic = prepareVgic(guest, { ...image, mode, forwarding, devicePages: 1 });
  const memory = new PartialMemory(guest);
  const done = (status: number, waits = memory.brought, moved = memory.brought): Result => ({
    status,
    state: stateOf(vgic),
    guest,
    waits,
    moved,
  });
  switch (policy) {
    case 'block':
      return done(await drive(vgic.restoreTables(), memory));
    case 'error-then-retry': {
      const { result } = await driveRetrying(() => vgic.restoreTables(), memory);
      return done(result, 0);
    }
    case 'freeze': {
      memory.moveEverything();
      // Every page that holds anything is there and frozen: each access waits for the thaw of its page.
      for (const page of guest.pages.keys()) memory.frozen.add(page);
      return done(await drive(vgic.restoreTables(), memory));
    }
    case 'mandate': {
      const moved = memory.moveEverything();
      return done(driveSync(vgic.restoreTables(), memory), 0, moved);
    }
    case 'plan': {
      const source = new LatencyMemory(guest, 1);
      using plan = await planRestore(vgic, source);
      for (const { page } of plan.touched) memory.present.add(page);
      const missing: unknown[] = [];
      const status = driveSync(vgic.restoreTables(), memory, {
        trace: ({ missed }) => missed && missing.push(1),
      });
      expect(missing).toEqual([]);
      return done(status, 0, plan.touched.length);
    }
  }
}

const pendingOf = ({ state }: Result): Set<number> =>
  new Set(
    (state as { lpis: { intid: number; pending: boolean }[] }).lpis
      .filter((l) => l.pending)
      .map((l) => l.intid),
  );

describe('the same restore under every policy', () => {
  it('comes to the same, if it is transactional', async () => {
    await fc.assert(
      fc.asyncProperty(anyImage, fc.boolean(), async (image, forwarding) => {
        const reference = await restoreUnder('mandate', 'transactional', image, forwarding);
        expect(reference.status).toBe(0);
        for (const policy of ['block', 'error-then-retry', 'freeze', 'plan'] as const) {
          const result = await restoreUnder(policy, 'transactional', image, forwarding);
          expect(result.status).toBe(0);
          expect(result.state).toEqual(reference.state);
          expect(result.guest.differingPages(reference.guest)).toEqual([]);
          expect(result.moved).toBeLessThanOrEqual(reference.moved);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('as the kernel does it: block, freeze, mandate and plan agree, error-then-retry may only lose', async () => {
    let losses = 0;
    await fc.assert(
      fc.asyncProperty(anyImage, async (image) => {
        const reference = await restoreUnder('mandate', 'kvm', image);
        for (const policy of ['block', 'freeze', 'plan'] as const) {
          const result = await restoreUnder(policy, 'kvm', image);
          expect(result.state).toEqual(reference.state);
          expect(result.guest.differingPages(reference.guest)).toEqual([]);
        }
        const retried = await restoreUnder('error-then-retry', 'kvm', image);
        const [all, kept] = [pendingOf(reference), pendingOf(retried)];
        for (const intid of kept) expect(all.has(intid)).toBe(true);
        losses += all.size - kept.size;
      }),
      { numRuns: 60, seed: 3 },
    );
    expect(losses).toBeGreaterThan(0);
  });

  it('costs what it costs: a table of policies on one image', async () => {
    const image: Image = {
      vcpuIds: [0, 1],
      indirect: true,
      collections: [
        { id: 0, vcpu: 0 },
        { id: 1, vcpu: 1 },
      ],
      devices: [
        {
          id: 1000,
          eventBits: 10,
          entries: [0, 700].map((event, index) => ({
            event,
            intid: 8192 + index * 5000,
            collection: index,
            configuration: 0xa1,
            pending: true,
          })),
        },
      ],
    };
    const rows: Record<string, unknown> = {};
    for (const mode of ['kvm', 'transactional'] as const) {
      for (const policy of ['block', 'error-then-retry', 'freeze', 'mandate', 'plan'] as const) {
        const result = await restoreUnder(policy, mode, image);
        const moved = policy === 'mandate' || policy === 'freeze' ? 'all' : result.moved;
        rows[`${policy}, ${mode}`] = [result.status, pendingOf(result).size, result.waits, moved];
      }
    }
    // [status, pending LPIs of 2, pages waited for inside the operation, pages moved]
    expect(rows).toEqual({
      'block, kvm': [0, 2, 10, 10],
      'error-then-retry, kvm': [0, 1, 0, 10],
      'freeze, kvm': [0, 2, 9, 'all'],
      'mandate, kvm': [0, 2, 0, 'all'],
      'plan, kvm': [0, 2, 0, 10],
      'block, transactional': [0, 2, 10, 10],
      'error-then-retry, transactional': [0, 2, 0, 10],
      'freeze, transactional': [0, 2, 9, 'all'],
      'mandate, transactional': [0, 2, 0, 'all'],
      'plan, transactional': [0, 2, 0, 10],
    });
  });
});
