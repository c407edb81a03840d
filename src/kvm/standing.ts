import { type ExitBoard } from './exit-board.js';

/** Boards, by their words, whose vCPUs stand until this isolate lets them go. */
const boards = new Set<SharedArrayBuffer>();

/** Says that the vCPUs of a board stand, or will, until this isolate lets them go; the function takes that back. */
export function standBy(board: ExitBoard): () => void {
  const { words } = board.token;
  boards.add(words);
  return () => void boards.delete(words);
}

/** Whether whoever waits here for the vCPUs of a board to go waits for himself. */
export const isStandingBy = (board: ExitBoard): boolean => boards.has(board.token.words);
