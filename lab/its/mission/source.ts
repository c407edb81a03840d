import {
  type CommandWords,
  encodeCommand,
  encodeConfiguration,
  GITS,
  level1,
  type SavedVgic,
  saveVgic,
} from 'demand-paging/arm64';
import { type Kvm, mapMemory } from 'demand-paging/linux';
import { GicVm } from '../gic-vm.js';
import {
  BLOCKS,
  CODE,
  DATA_PAGES,
  dataWord,
  DEVICES,
  EVENTS,
  GICD_BASE,
  GICR_BASE,
  ITS_BASE,
  PAGE,
  PLACE,
  RAM,
  RAM_BYTES,
  VCPU_IDS,
} from './guest.js';

/** What a VMM has of a VM that it saved: its memory and its registers. */
export interface SavedMachine {
  readonly image: SharedArrayBuffer;
  readonly vgic: SavedVgic;
}

const VALID = 1n << 63n;
const INDIRECT = 1n << 62n;
const PRIORITY = 0xa0;

/** Builds a VM with devices, events and pending interrupts on a real KVM, and has that KVM save it. */
export async function saveSource(kvm: Kvm): Promise<SavedMachine> {
  const ram = mapMemory({ kind: 'anonymous', length: RAM_BYTES });
  try {
    const bytes = ram.bytes();
    fill(bytes);
    const spec = { vcpuIds: VCPU_IDS, itsBases: [ITS_BASE], gicdBase: GICD_BASE, gicrBase: GICR_BASE };
    using gic = new GicVm(kvm, spec, [{ gpa: Number(RAM), length: RAM_BYTES, userspace: ram.address }]);
    live(gic, bytes);
    const shape = { vcpus: VCPU_IDS.map((vcpuId) => ({ vcpuId })), itses: 1 };
    const vgic = await saveVgic(shape, gic.gic.saveIssuer);
    const image = new SharedArrayBuffer(RAM_BYTES);
    new Uint8Array(image).set(bytes);
    return { image, vgic };
  } finally {
    ram.dispose();
  }
}

const at = (gpa: bigint): number => Number(gpa - RAM);

function fill(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  bytes.set(new Uint8Array(CODE.buffer), at(PLACE.code));
  for (const vcpu of VCPU_IDS.keys())
    for (let page = 0; page < DATA_PAGES; page++)
      view.setBigUint64(at(PLACE.data(vcpu)) + page * PAGE, dataWord(vcpu, page), true);
  for (let n = 0; n < BLOCKS; n++)
    view.setBigUint64(
      at(PLACE.devices) + n * 8,
      level1.encode({ address: PLACE.block(n), valid: true }),
      true,
    );
  for (const { intid, enabled } of EVENTS)
    bytes[at(PLACE.configuration) + intid - 8192] = encodeConfiguration({ enabled, priority: PRIORITY });
}

/** What the guest's driver does: registers, commands; and the devices' interrupts. */
function live(gic: GicVm, bytes: Uint8Array): void {
  for (const cpu of VCPU_IDS.keys()) {
    must('PROPBASER', gic.setRedistributor(cpu, 0x70n, PLACE.configuration | 0x78fn, 8));
    must('PENDBASER', gic.setRedistributor(cpu, 0x78n, PLACE.pending(cpu) | 0x780n, 8));
    must('GICR_CTLR', gic.setRedistributor(cpu, 0n, 1n, 4));
  }
  const its = (offset: number, value: bigint): void =>
    must(`GITS 0x${offset.toString(16)}`, gic.setIts(0, BigInt(offset), value));
  its(GITS.CBASER, VALID | PLACE.queue);
  its(GITS.BASER0, VALID | INDIRECT | PLACE.devices);
  its(GITS.BASER1, VALID | PLACE.collections);
  its(GITS.CTLR, 1n);
  const words = [...commands()].flat();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  words.forEach((word, index) => view.setBigUint64(at(PLACE.queue) + index * 8, word, true));
  its(GITS.CWRITER, BigInt(words.length * 8));
  for (const { device, event, pending } of EVENTS)
    if (pending) must('KVM_SIGNAL_MSI', gic.signalMsi(ITS_BASE + 0x1_0040n, 1, device, event) - 1);
  must('GICD_CTLR', gic.setDistributor(0n, 0x12n, 4));
}

function* commands(): Generator<CommandWords> {
  for (const [collection, target] of VCPU_IDS.entries())
    yield encodeCommand({ kind: 'MAPC', collection, target, valid: true });
  for (const { id: device, eventBits, itt, events } of DEVICES) {
    yield encodeCommand({ kind: 'MAPD', device, eventBits, itt, valid: true });
    for (const { event, intid, collection } of events)
      yield encodeCommand({ kind: 'MAPTI', device, event, intid, collection });
  }
}

function must(what: string, status: number): void {
  if (status !== 0) throw new Error(`${what} of the source: KVM answers ${status}`);
}
