import { parentPort, workerData } from 'node:worker_threads';
import { type AccessorCommand, type AccessorData } from './messages.js';
import { TouchLoop } from './touch-loop.js';

/** An accessor on a thread of the VMM's own process. */
const port = parentPort!;
const loop = new TouchLoop(workerData as AccessorData, (event) => port.postMessage(event));
port.on('message', (command: AccessorCommand) => {
  void loop.take(command).then((last) => last && port.close());
});
