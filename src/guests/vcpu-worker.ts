import { parentPort, workerData } from 'node:worker_threads';
import { MemoryLayout } from '../api/layout.js';
import { pagesOf, WalkTally, type Walk, type WalkReport } from '../accessors/index.js';
import { ERRNO, threadId } from '../linux/index.js';
import {
  type GuestResult,
  type GuestSite,
  type VcpuCommand,
  type VcpuEvent,
  type VcpuPlace,
  type VcpuThreadData,
} from './messages.js';
import { Arm64Access } from './arm64-access.js';
import { VcpuAccess } from './vcpu-access.js';

/** The thread of a vCPU: makes one access after the other, each with the vCPU of its command. */
const port = parentPort!;
const { interrupted } = workerData as VcpuThreadData;
const interruption = new Int32Array(interrupted);
const tell = (event: VcpuEvent): void => port.postMessage(event);

const accessOf = (place: VcpuPlace): VcpuAccess | Arm64Access =>
  process.arch === 'arm64' ? new Arm64Access(place) : new VcpuAccess(place);

/** Releases the vCPU before the result is sent, because its receiver may use the vCPU again at once. */
function accessed({ site, vcpu, access }: Extract<VcpuCommand, { kind: 'access' }>): GuestResult {
  using made = accessOf(vcpu);
  return made.make(site, access);
}

function walked(site: GuestSite, place: VcpuPlace, walk: Walk): WalkReport {
  using access = accessOf(place);
  const layout = new MemoryLayout(place.regions);
  const tally = new WalkTally();
  for (const page of pagesOf(walk)) {
    const length = layout.regionOf(page).pageSize;
    const before = performance.now();
    const read = { page, offset: 0, length, bytes: undefined, kernel: 'string-io', injects: false } as const;
    const result = access.make(site, read);
    const took_ms = performance.now() - before;
    if (result.ok) tally.saw(page, result.bytes, took_ms);
    else tally.failed(page, result.errno || ERRNO.EIO, took_ms);
    // A vCPU that failed in the middle of an instruction cannot be used again.
    if (!result.ok || Atomics.load(interruption, 0) !== 0) return tally.report(true);
  }
  return tally.report(false);
}

function execute(command: Exclude<VcpuCommand, { kind: 'stop' }>): void {
  const { id } = command;
  try {
    if (command.kind === 'walk')
      return tell({ kind: 'walked', id, report: walked(command.site, command.vcpu, command.walk) });
    tell({ kind: 'accessed', id, result: accessed(command) });
  } catch (error) {
    tell({
      kind: 'failed',
      id,
      message: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
  }
}

port.on('message', (command: VcpuCommand) => {
  if (command.kind === 'stop') port.close();
  else execute(command);
});
tell({ kind: 'ready', thread: threadId() });
