import { describe, expect, it } from 'vitest';
import { beginRestore, type RestoreAction, saveVgic, type SaveAction } from '../../src/arm64/index.js';
import { WHOLE_GIC } from './whole-gic.js';

/** A register by what names it, whatever is done with it. */
const keyOf = ({ value: _, ...register }: SaveAction & { readonly value?: bigint }): string =>
  JSON.stringify(register, (_key, part: unknown) => (typeof part === 'bigint' ? part.toString(16) : part));

const shape = { vcpus: WHOLE_GIC.redistributors, itses: WHOLE_GIC.itses.length };

async function restoreAll(issue: (action: RestoreAction) => void, saved = WHOLE_GIC): Promise<void> {
  const redistributors = await beginRestore(issue).restoreDistributor(saved.distributor);
  let its = await redistributors.restoreRedistributors(saved.redistributors);
  for (const registers of saved.itses) {
    const tables = await its.restoreItsRegisters(registers);
    its = (await (await tables.restoreTables()).enableIts()).nextIts();
  }
}

describe('a whole GIC', () => {
  it('is saved as it was restored, each register once', async () => {
    const registers = new Map<string, bigint>();
    await restoreAll((action) => {
      if (action.group !== 'CTRL') registers.set(keyOf(action), action.value);
    });
    const asked: string[] = [];
    const saved = await saveVgic(shape, (action) => {
      if (action.group === 'CTRL') return 0n;
      const key = keyOf(action);
      asked.push(key);
      const value = registers.get(key);
      if (value === undefined) throw new Error(`a register that no restore sets: ${key}`);
      return value;
    });
    expect(saved).toEqual({
      ...WHOLE_GIC,
      itses: WHOLE_GIC.itses.map((its) => ({ ...its, ctlr: 1n })), // Quiescent is the device's to say
    });
    expect(new Set(asked).size).toBe(asked.length);
    const clears = [...registers.keys()].filter((key) => !asked.includes(key));
    expect(clears.length).toBe(2 * (2 + 2)); // ICENABLER and ICACTIVER, of two vCPUs and of two words of SPIs
  });

  it('has its tables written before a register is read: the dirty log has them', async () => {
    const done: string[] = [];
    await saveVgic(shape, (action) => {
      done.push(action.group === 'CTRL' ? `${action.device} ${action.attribute}` : 'register');
      return 96n;
    });
    expect(done.slice(0, 4)).toEqual(['gic 3', 'its 1', 'its 1', 'register']);
    expect(new Set(done.slice(3))).toEqual(new Set(['register']));
  });

  it('has a failure stop the save there', async () => {
    let issued = 0;
    const failing = saveVgic(shape, () => {
      if (++issued === 2) throw new Error('EFAULT');
      return 0n;
    });
    await expect(failing).rejects.toThrow('EFAULT');
    expect(issued).toBe(2);
  });

  it('without a vCPU is nothing to save', () =>
    expect(saveVgic({ vcpus: [], itses: 1 }, () => 0n)).rejects.toThrow(RangeError));

  it('has what decides on delivery set before the level and the latch, and the bits of before cleared', async () => {
    const order: string[] = [];
    await restoreAll((action) => {
      if (action.group === 'LEVEL_INFO') order.push(`level of ${action.intid}`);
      if (action.group === 'DIST_REGS') order.push(`GICD ${action.offset.toString(16)}`);
      if (action.group === 'REDIST_REGS') order.push(`GICR ${action.offset.toString(16)}`);
    });
    const at = (name: string): number => order.indexOf(name);
    const before = (...names: string[]): void => {
      const places = names.map(at);
      expect(places).not.toContain(-1);
      expect(places).toEqual([...places].sort((a, b) => a - b));
    };
    before('GICD 8', 'GICD 0', 'GICR 70', 'GICR 78', 'GICR 0');
    before('GICR 10080', 'GICR 10c00', 'GICR 10400', 'GICR 10180', 'GICR 10100', 'level of 0', 'GICR 10200');
    before('GICR 10200', 'GICR 10380', 'GICR 10300');
    before('GICD 84', 'GICD 6100', 'GICD c08', 'GICD 420', 'GICD 184', 'GICD 104', 'level of 32', 'GICD 204');
    before('GICD 204', 'GICD 384', 'GICD 304');
    before('GICD 0', 'GICR 10200', 'GICD 204');
  });

  it.each([
    ['a route too few', { spis: { ...WHOLE_GIC.distributor.spis, irouter: [0n] } }],
    ['a register too few', { spis: { ...WHOLE_GIC.distributor.spis, ispendr: [0] } }],
    ['a fraction', { spis: { ...WHOLE_GIC.distributor.spis, ispendr: [0, 1.5] } }],
    ['a text', { spis: { ...WHOLE_GIC.distributor.spis, ispendr: ['0', 'x'] as never } }],
    ['33 bits', { spis: { ...WHOLE_GIC.distributor.spis, ispendr: [0, 2 ** 32] } }],
    ['a negative route', { spis: { ...WHOLE_GIC.distributor.spis, irouter: Array<bigint>(64).fill(-1n) } }],
    ['a number for a word', { ctlr: 2 as never }],
    ['no IIDR', { iidr: undefined as never }],
    ['a number of interrupts that is none', { nrIrqs: NaN }],
    ['a field missing', { spis: { ...WHOLE_GIC.distributor.spis, lineLevel: undefined as never } }],
  ])('of which %s was saved is refused', async (_, change) => {
    const saved = { ...WHOLE_GIC, distributor: { ...WHOLE_GIC.distributor, ...change } };
    await expect(restoreAll(() => undefined, saved)).rejects.toMatchObject({ code: 'BAD_IMAGE' });
  });

  it('of which fewer active priorities registers were saved than ICC_CTLR_EL1 says is refused', async () => {
    const [first, second] = WHOLE_GIC.redistributors;
    const cpuInterface = { ...second!.cpuInterface, ap1r: [0n] };
    const saved = { ...WHOLE_GIC, redistributors: [first!, { ...second!, cpuInterface }] };
    await expect(restoreAll(() => undefined, saved)).rejects.toMatchObject({ code: 'BAD_IMAGE' });
  });
});
