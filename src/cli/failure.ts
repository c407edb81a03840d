import { DemandPagingError } from '../api/index.js';

/** Something wrong with the command line; exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Exit statuses of the program. */
export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

export interface FailureText {
  readonly lines: readonly string[];
  readonly status: number;
}

/** What the user reads when a command fails, and the status it ends with. */
export function describeFailure(thrown: unknown): FailureText {
  if (thrown instanceof UsageError) return { lines: [`error: ${thrown.message}`], status: EXIT.usage };
  if (thrown instanceof RangeError || thrown instanceof TypeError) {
    // Misuse that only the library could see: an option's value out of its bounds.
    return { lines: [`error: ${thrown.message}`], status: EXIT.usage };
  }
  if (thrown instanceof DemandPagingError) {
    const { message, hint } = splitHint(thrown);
    const lines = [`error ${thrown.code}: ${message}`];
    if (hint !== undefined) lines.push(`hint: ${hint}`);
    return { lines, status: EXIT.failed };
  }
  const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  return { lines: [`error: ${text}`], status: EXIT.failed };
}

/** A message of the library ends with its hint; here each has its line. */
function splitHint({ message, hint }: DemandPagingError): { message: string; hint: string | undefined } {
  const tail = `. ${hint}`;
  return hint !== undefined && message.endsWith(tail)
    ? { message: message.slice(0, -tail.length), hint }
    : { message, hint };
}
