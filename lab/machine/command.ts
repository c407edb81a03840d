import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { LabFailure } from './failure.js';

export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Ends the program (SIGKILL) when it aborts. */
  readonly signal: AbortSignal;
  readonly timeout_ms?: number;
}

/** Where a program lies, if it is installed. */
export function findProgram(name: string, path = process.env['PATH'] ?? ''): string | undefined {
  if (isAbsolute(name)) return existsSync(name) ? name : undefined;
  // Debian keeps administrators' programs out of the path of users.
  const folders = [...path.split(delimiter), '/usr/sbin', '/sbin'];
  return folders.map((folder) => join(folder, name)).find((file) => existsSync(file));
}

/** The last lines of what a program said, where it says why it failed. */
function complaint(output: string): string {
  const lines = output.trimEnd().split('\n');
  const errors = lines.filter((line) => /^(E:|npm (error|ERR!)|\S+: )/.test(line));
  return (errors.length > 0 ? errors : lines).slice(-3).join('; ') || 'it said nothing';
}

/**
 * Runs a program to its end and gives its standard output.
 * Errors: LabFailure with what it complained of; the signal's reason when that aborted it.
 */
export async function command(
  program: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<string> {
  const { signal, timeout_ms = 600_000 } = options;
  signal.throwIfAborted();
  const limit = AbortSignal.timeout(timeout_ms);
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    signal: AbortSignal.any([signal, limit]),
    killSignal: 'SIGKILL',
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  const { status, error } = await new Promise<{ status: number | null; error?: Error }>((resolve) => {
    let failure: Error | undefined;
    child.on('error', (error) => {
      failure = error;
      // A program that never started has no end of its own.
      if (child.pid === undefined) resolve({ status: null, error });
    });
    child.on('close', (status) => resolve({ status, ...(failure ? { error: failure } : {}) }));
  });
  signal.throwIfAborted();
  const text = Buffer.concat(out).toString();
  if (status === 0) return text;
  if (limit.aborted) throw new LabFailure(`${program} was not done after ${timeout_ms / 1000} s`);
  if (error) throw new LabFailure(`${program} did not start: ${error.message}`, { cause: error });
  throw new LabFailure(
    `${program} ${args[0] ?? ''} failed: ${complaint(Buffer.concat(err).toString() || text)}`,
  );
}
