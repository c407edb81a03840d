import { type Terminal } from './terminal.js';

/** What a command is given besides its arguments. */
export interface CommandContext {
  readonly terminal: Terminal;
  /** Sets the status with which the program will end. */
  exit(status: number): void;
}
