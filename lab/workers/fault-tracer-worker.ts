import { writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { Poller, UffdPort } from 'demand-paging/linux';
import { FaultLog, PAGE, type TracerToken } from '../its/fault-log.js';

/**
 * Serves the missing pages of a traced memory, one by one, in the order in which they are asked for, and
 * notes them.
 */
const EEXIST = 17;
const EAGAIN = 11;

const { uffd, end, target, source, log: shared } = workerData as TracerToken;
const log = new FaultLog(shared);
const port = new UffdPort(uffd, 1);
const poller = new Poller([uffd, end]);

/** A thread that waits for the page would wait for ever and cannot be ended: this ends the process. */
function giveUp(why: string): never {
  writeSync(2, `the fault tracer gave up: ${why}\n`);
  process.kill(process.pid, 'SIGKILL');
  throw new Error(why);
}

function serve(address: number, write: boolean): void {
  const page = address - (address % PAGE);
  log.note(page - target, write); // before the page is there: the accessor may read the log at once
  let result: number;
  do result = port.copy(page, source + (page - target), PAGE);
  while (result === -EAGAIN);
  if (result === -EEXIST) result = port.wake(page, PAGE);
  if (result < 0) giveUp(`page at ${page - target}: errno ${-result}`);
}

parentPort!.postMessage('ready');
for (;;) {
  if (poller.wait(-1) < 0) continue; // a signal
  if (poller.ready(1) !== 0) break;
  if (port.read() !== 1) continue;
  const event = port.event(0);
  if (event.kind !== 'fault' || event.fault !== 'missing') giveUp(`an event of kind ${event.kind}`);
  else serve(event.address, event.write);
}
poller.close();
port.close();
