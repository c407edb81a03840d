/** Exit statuses of the lab, besides 0. */
export const STATUS = { failed: 1, usage: 2, unavailable: 3 } as const;

/** Why the lab ended without a result of its tests: shown as one line and a hint, without a stack. */
export class LabFailure extends Error {
  readonly hint: string | undefined;
  /** `unavailable`: nothing could be booted, because something is missing here; else it went wrong. */
  readonly status: number;

  constructor(message: string, options: { hint?: string; status?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = 'LabFailure';
    this.hint = options.hint;
    this.status = options.status ?? STATUS.failed;
  }
}

/** A part of the lab is unavailable here. */
export function unavailable(message: string, hint?: string, cause?: unknown): LabFailure {
  return new LabFailure(message, { status: STATUS.unavailable, cause, ...(hint ? { hint } : {}) });
}
