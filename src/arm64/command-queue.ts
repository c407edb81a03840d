import { type Program } from '../api/index.js';
import { COMMAND_BYTES, decodeCommand, readCommandWords } from './commands.js';
import type { Status } from './errno.js';
import type { Its } from './its.js';
import { executeCommand } from './its-commands.js';
import { gitsCbaser } from './registers.js';
import type { Run } from './run.js';

const QUEUE_PAGE_BYTES = 4096;

/** Bytes of the queue that GITS_CBASER describes. */
export const queue_bytes = (cbaser: bigint): number => gitsCbaser.decode(cbaser).pages * QUEUE_PAGE_BYTES;

/**
 * Executes what is queued, if the ITS is enabled. The queue page is read again for each command: the
 * guest may have written more, and a command may write to the queue itself.
 *
 * A command whose memory is not there is lost in `kvm` mode: GITS_CREADR moves on. In transactional
 * mode GITS_CREADR stays at it and the errno is returned, unless the address is in no memslot: then
 * no retry could help, and it is skipped.
 */
export function* processCommands(run: Run, its: Its): Program<Status> {
  if (!its.enabled) return 0;
  const queue = Number(gitsCbaser.decode(its.cbaser).address);
  const bytes = queue_bytes(its.cbaser);
  const { windows, vgic, work } = run;
  while (its.creadr !== its.cwriter) {
    if (work.step()) yield* work.pause();
    windows.clearFailure();
    const address = queue + its.creadr;
    const window = yield* windows.reread(address);
    if (typeof window !== 'number') {
      const command = decodeCommand(readCommandWords(window.view, address - window.start));
      yield* executeCommand(run, its, command);
    }
    if (vgic.mode === 'transactional') {
      const stall = yield* retryableFailure(run);
      if (stall !== 0) return stall;
    }
    its.creadr += COMMAND_BYTES;
    if (its.creadr === bytes) its.creadr = 0;
  }
  return 0;
}

/** Minus the errno of a failed access whose page could still be supplied, or 0. */
export function* retryableFailure({ windows }: Run): Program<Status> {
  const { failure } = windows;
  if (failure === undefined || !(yield* windows.visible(failure.address))) return 0;
  return -failure.errno;
}
