import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../../scripts/entries.mjs';
import { PseudoTerminal } from './pseudo-terminal.js';

/** The built program, as a user runs it. */
const PROGRAM = join(ROOT, 'dist', 'cli.js');

export interface CliEnd {
  /** Exit status, or the signal's name. */
  readonly status: number | string;
  readonly stdout: string;
  readonly stderr: string;
  readonly elapsed_ms: number;
}

/** What a standard stream is redirected to, as in a shell: a file of any kind, or nothing at all. */
type Redirection = { readonly to: string } | 'closed';

export interface CliOptions extends SpawnOptions {
  readonly stdin?: Redirection;
  readonly stdout?: Redirection;
  readonly stderr?: Redirection;
  /** A program, with arguments, that becomes the one of its further arguments. */
  readonly before?: readonly string[];
}

const SHELL = '/bin/sh';

/** A shell's script that becomes its arguments, with the streams redirected; undefined where none is. */
function redirecting({ stdin, stdout, stderr }: CliOptions): string | undefined {
  const words = [stdin, stdout, stderr].flatMap((redirection, fd) => {
    if (redirection === undefined) return [];
    return redirection === 'closed' ? `${fd}>&-` : `${fd}<>'${redirection.to}'`;
  });
  return words.length === 0 ? undefined : `exec "$0" "$@" ${words.join(' ')}`;
}

export class CliRun {
  readonly child: ChildProcess;
  readonly ended: Promise<CliEnd>;
  #stdout = '';
  #stderr = '';
  #look: () => void = () => {};

  constructor(args: readonly string[], { before = [], ...options }: CliOptions = {}) {
    const started = performance.now();
    const command = [...before, process.execPath, PROGRAM, ...args];
    const script = redirecting(options);
    if (script !== undefined) command.unshift(SHELL, '-c', script);
    this.child = spawn(command[0]!, command.slice(1), {
      ...options,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
      this.#look();
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.#stderr += text));
    this.ended = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('close', (code, signal) => {
        this.#look();
        resolve({
          status: signal ?? code ?? -1,
          stdout: this.#stdout,
          stderr: this.#stderr,
          elapsed_ms: performance.now() - started,
        });
      });
    });
  }

  /** Resolves when its output shows `pattern`; rejects when it ends without. */
  async shows(pattern: RegExp): Promise<void> {
    const seen = new Promise<void>((resolve) => {
      this.#look = () => pattern.test(this.#stdout) && resolve();
      this.#look();
    });
    const end = await Promise.race([seen, this.ended]);
    if (end && !pattern.test(end.stdout))
      throw new Error(`it ended without ${String(pattern)}: ${JSON.stringify(end)}`);
  }
}

/** Runs the program to its end. */
export const cli = (args: readonly string[], options?: CliOptions): Promise<CliEnd> =>
  new CliRun(args, options).ended;

export interface TerminalEnd {
  readonly status: number | string;
  /** All that was written, as it was written. */
  readonly written: string;
}

/** Runs the program in a terminal of its own, as the leader of its session. */
export class TerminalRun implements Disposable {
  readonly terminal: PseudoTerminal;
  readonly ended: Promise<TerminalEnd>;
  readonly #run: CliRun;

  constructor(args: readonly string[], columns: number, options: CliOptions = {}) {
    this.terminal = new PseudoTerminal(columns);
    const stream = { to: this.terminal.path };
    const streams = { stdin: stream, stdout: stream, stderr: stream };
    // The first terminal that the leader of a session opens is the session's.
    this.#run = new CliRun(args, { ...streams, ...options, detached: true });
    this.terminal.endsWith(this.#run.child);
    this.ended = Promise.all([this.#run.ended, this.terminal.closed]).then(([{ status }]) => ({
      status,
      written: this.terminal.written,
    }));
  }

  [Symbol.dispose](): void {
    this.terminal[Symbol.dispose]();
  }
}

/** A folder that is the programs' temporary folder, too: what they leave is seen in it. */
export class Workplace implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'cli-test-'));
  readonly temporary = mkdtempSync(join(this.folder, 'tmp-'));
  readonly options: SpawnOptions = { env: { ...process.env, TMPDIR: this.temporary } };

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Temporary files that are there now. */
  leftFiles(): string[] {
    return readdirSync(this.temporary);
  }

  /** Processes that were started with this temporary folder and still run. */
  leftProcesses(): string[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => readOr(`/proc/${pid}/environ`).includes(`TMPDIR=${this.temporary}`))
      .map((pid) => readOr(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim())
      .filter((command) => command !== ''); // a zombie has none
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function readOr(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // it is gone
  }
}

export const vectors = (family: string): string => join(ROOT, 'fixtures', 'its-vectors', `${family}.jsonl`);

/** Another user, without any privilege, or why there is none here. */
export async function nobody(): Promise<{ readonly options: SpawnOptions } | { readonly lacking: string }> {
  if (process.getuid?.() !== 0) return { lacking: 'only root can become another user' };
  const options = { uid: 65534, gid: 65534, env: { PATH: process.env['PATH'] }, cwd: '/' };
  const { status } = await cli(['--version'], options).catch(() => ({ status: -1 }));
  return status === 0 ? { options } : { lacking: 'another user cannot read this tree' };
}

/** Columns that a tab takes at the beginning of a line, where commands write any. */
const TAB = ' '.repeat(8);

/** The longest line, in columns. */
export const widest = (text: string): number =>
  Math.max(...text.split('\n').map((line) => [...line.replaceAll('\t', TAB)].length));
