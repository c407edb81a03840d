import { type AccessorCommand, type AccessorData } from './messages.js';
import { TouchLoop } from './touch-loop.js';

/** An accessor in another process. It ends when it is told, and when whoever started it is gone. */
let loop: TouchLoop | undefined;
process.on('disconnect', () => process.exit());
process.on('message', (message: AccessorData | AccessorCommand) => {
  if ('site' in message) {
    loop = new TouchLoop(message, (event) => process.send!(event));
  } else {
    void loop!.take(message).then((last) => last && process.disconnect());
  }
});
// Ctrl-C at a terminal reaches every process of the group; who started this one decides when it ends.
process.on('SIGINT', () => {});
