import { type AccessorCommand, type AccessorData } from './messages.js';
import { TouchLoop } from './touch-loop.js';

/** An accessor in another process. It ends on the command to stop, or when its parent has ended. */
let loop: TouchLoop | undefined;
process.on('disconnect', () => process.exit());
process.on('message', (message: AccessorData | AccessorCommand) => {
  if ('site' in message) {
    loop = new TouchLoop(message, (event) => process.send!(event));
  } else {
    void loop!.take(message).then((last) => last && process.disconnect());
  }
});
// A terminal, and timeout(1), signal every process of the group; the one that started this decides when it
// ends.
for (const signal of ['SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGTERM'] as const) process.on(signal, () => {});
