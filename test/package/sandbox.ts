import { execFileSync, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { ROOT } from '../../scripts/entries.mjs';

/** How a program ended and what it said. */
export interface Ended {
  readonly status: number | null;
  readonly output: string;
}

/**
 * A project of a user, in a folder of its own: the packed library unpacked as npm would, its declared
 * dependencies, and nothing else of this repository within reach. Dependencies are links to the
 * installed ones, so that no network is needed.
 */
export class Sandbox implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'demand-paging-'));

  /** @param without dependencies that this user's installation lacks */
  constructor(without: readonly string[] = []) {
    const library = join(this.folder, 'node_modules', 'demand-paging');
    mkdirSync(library, { recursive: true });
    execFileSync('tar', ['-xzf', this.#pack(), '-C', library, '--strip-components=1']);
    const { dependencies } = JSON.parse(readFileSync(join(library, 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>;
    };
    for (const name of [...Object.keys(dependencies), '@types/node']) {
      if (!without.includes(name)) this.#link(name);
    }
    this.write('package.json', JSON.stringify({ name: 'user', private: true, type: 'module' }));
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.folder, path)), { recursive: true });
    writeFileSync(join(this.folder, path), text);
  }

  /** Runs node in the folder of the project. */
  node(args: readonly string[]): Ended {
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: this.folder,
      encoding: 'utf8',
      env: { PATH: process.env['PATH'] },
    });
    return { status, output: stdout + stderr };
  }

  /** Compiles the project as its tsconfig.json says. */
  compile(): Ended {
    return this.node([
      join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'),
      '-p',
      '.',
      '--pretty',
      'false',
    ]);
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  #pack(): string {
    const folder = join(this.folder, 'packed');
    mkdirSync(folder);
    execFileSync('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', folder], {
      cwd: ROOT,
    });
    return join(folder, readdirSync(folder)[0] as string);
  }

  #link(name: string): void {
    const target = join(this.folder, 'node_modules', name);
    mkdirSync(dirname(target), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', name), target, 'dir');
  }
}
