import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../../scripts/entries.mjs';

/** The built program, as a user runs it. */
const PROGRAM = join(ROOT, 'dist', 'cli.js');

export interface CliEnd {
  /** Exit status, or the signal's name. */
  readonly status: number | string;
  readonly stdout: string;
  readonly stderr: string;
  readonly elapsed_ms: number;
}

export class CliRun {
  readonly child: ChildProcess;
  readonly ended: Promise<CliEnd>;
  #stdout = '';
  #stderr = '';
  #look: () => void = () => {};

  constructor(args: readonly string[], options: SpawnOptions = {}) {
    const started = performance.now();
    this.child = spawn(process.execPath, [PROGRAM, ...args], {
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
export const cli = (args: readonly string[], options?: SpawnOptions): Promise<CliEnd> =>
  new CliRun(args, options).ended;

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

/** The longest line, in columns. */
export const widest = (text: string): number => Math.max(...text.split('\n').map((line) => [...line].length));
