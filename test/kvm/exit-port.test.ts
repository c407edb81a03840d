import { afterEach, expect, test, vi } from 'vitest';
import { FaultBatch } from '../../src/api/index.js';
import { type ExitPort } from '../../src/kvm/exit-port.js';
import { FAULT, SharedVcpuState } from '../../src/kvm/shared-vcpu-state.js';
import { EventFd, mapMemory, pageSize } from '../../src/linux/index.js';
import { exitPort, regionAt } from './exit-port-rig.js';

const PAGES = 8;
const undo: (() => void)[] = [];
afterEach(() => {
  vi.restoreAllMocks();
  for (const step of undo.splice(0).reverse()) step();
});

function openPort(): { port: ExitPort; shared: SharedVcpuState } {
  const bytes = pageSize();
  const memory = mapMemory({ kind: 'anonymous', length: PAGES * bytes });
  const doorbell = EventFd.create();
  const shared = SharedVcpuState.create(PAGES, 1);
  const region = regionAt(memory.address, PAGES, bytes);
  const port = exitPort({
    shared: shared.token,
    regions: [region],
    doorbell: doorbell.fd,
    userfault: undefined,
    staging_bytes: bytes,
    verbs: 0,
  });
  undo.push(
    () => memory.dispose(),
    () => doorbell.close(),
    () => port.close(),
  );
  return { port, shared };
}

test('exit port: a fault raised just after the first look: taken by polling, without a sleep', () => {
  const { port, shared } = openPort();
  const raisedFaults = Object.getOwnPropertyDescriptor(SharedVcpuState.prototype, 'raisedFaults')!.get!;
  let looks = 0;
  vi.spyOn(SharedVcpuState.prototype, 'raisedFaults', 'get').mockImplementation(function (
    this: SharedVcpuState,
  ) {
    if (++looks === 2) shared.raiseFault(0, 3, FAULT.pending);
    return raisedFaults.call(this) as number;
  });
  const asleep = vi.spyOn(SharedVcpuState.prototype, 'asleep', 'set');
  const batch = new FaultBatch(8);
  expect(port.take(batch, 'block', 10_000)).toBe(1);
  expect(batch.fault(0)).toMatchObject({ page: 3 });
  expect(asleep).not.toHaveBeenCalled();
});

test('exit port: a kick and no fault: the poll ends, and so does the sleep', () => {
  const { port, shared } = openPort();
  shared.kick();
  expect(port.take(new FaultBatch(8), 'block', 10_000)).toBe(0);
});
