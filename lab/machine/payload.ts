import { existsSync } from 'node:fs';
import { chmod, copyFile, cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { command } from './command.js';
import { LabFailure, STATUS } from './failure.js';
import { copyHostLibraries } from './host-libraries.js';
import { writeArchive } from './initramfs.js';
import { lockedPackages } from './locked-packages.js';
import { type Target } from './target.js';

/** What one run adds to the base image. */
export interface Payload {
  readonly root: string;
  readonly target: Target;
  readonly suites: readonly Suite[];
  /** Arguments of vitest, which runs as a suite of that name; none: it does not. */
  readonly vitest: readonly string[];
  /** Seconds that one suite may take. */
  readonly suiteLimit: number;
  readonly environment: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** Suites that take many minutes on an emulated CPU: they run when they are named, or with `--all`. */
const LONG = /^(coverage|conformance-(kvm-exit|memslot-hole|composite|guest-memfd))$/;

export interface Suite {
  readonly name: string;
  /** Left out unless it is asked for. */
  readonly long: boolean;
  /** Relative to the root. */
  readonly source: string;
}

/** The suites of a target: files directly in `lab/suites`, and in the folder of its architecture. */
export async function suitesOf(root: string, target: Target): Promise<Suite[]> {
  const folders = ['lab/suites', `lab/suites/${target.name}`];
  const suites: Suite[] = [];
  for (const folder of folders) {
    if (!existsSync(join(root, folder))) continue;
    for (const entry of await readdir(join(root, folder), { withFileTypes: true }))
      if (entry.isFile() && entry.name.endsWith('.ts'))
        suites.push(suiteOf(basename(entry.name, '.ts'), join(folder, entry.name)));
  }
  return suites.sort((a, b) => (a.name < b.name ? -1 : 1));
}

const suiteOf = (name: string, source: string): Suite => ({ name, source, long: LONG.test(name) });

/** The names of what runs, in order. */
export function planOf({ suites, vitest }: Pick<Payload, 'suites' | 'vitest'>): string[] {
  return [...suites.map(({ name }) => name), ...(vitest.length > 0 ? ['vitest'] : [])];
}

/**
 * Builds the archive of a run: the packed library with its dependencies, the suites, and what starts them.
 */
export async function writePayload(payload: Payload, scratch: string, file: string): Promise<void> {
  const { root, target, signal } = payload;
  const image = join(scratch, 'payload');
  await mkdir(join(image, 'lab/suites'), { recursive: true });
  await installLibrary(payload, image, scratch);
  if (payload.suites.length > 0) await bundleSuites(payload, join(image, 'lab/suites'));
  if (payload.vitest.length > 0) await copyRepository(payload, image);
  await copyFile(join(root, 'lab/guest/init'), join(image, 'init'));
  await chmod(join(image, 'init'), 0o755);
  await copyFile(join(root, 'lab/guest/reporter.mjs'), join(image, 'lab/reporter.mjs'));
  await writeFile(
    join(image, 'lab/plan'),
    planOf(payload)
      .map((name) => `${name}\n`)
      .join(''),
  );
  await writeFile(join(image, 'lab/package.json'), '{ "type": "module" }\n');
  const environment = {
    LAB_LIMIT: String(payload.suiteLimit),
    LAB_TARGET: target.name,
    ...payload.environment,
  };
  const lines = Object.entries(environment).map(
    ([name, value]) => `export ${name}='${value.replaceAll("'", "'\\''")}'\n`,
  );
  await writeFile(join(image, 'lab/environment'), lines.join(''));
  await writeArchive(image, file, signal);
}

/** The library as npm would install it from its tarball, below the folder of the suites. */
async function installLibrary(
  { root, target, signal }: Payload,
  image: string,
  scratch: string,
): Promise<void> {
  const modules = join(image, 'lab/node_modules');
  const library = join(modules, 'demand-paging');
  const packed = join(scratch, 'packed');
  await mkdir(packed, { recursive: true });
  await mkdir(library, { recursive: true });
  await command('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', packed], {
    cwd: root,
    signal,
  });
  const [tarball] = await readdir(packed);
  await command('tar', ['-xzf', join(packed, tarball!), '-C', library, '--strip-components=1'], { signal });
  for (const path of await productionPackages(root, target)) {
    const to = join(image, 'lab', path);
    await mkdir(dirname(to), { recursive: true });
    await cp(join(root, path), to, {
      recursive: true,
      filter: (source) => !/\.(d\.[cm]?ts|map)$/.test(source),
    });
  }
}

/**
 * Folders of what the library depends on at run time. The native library of another architecture is in the
 * base image.
 */
async function productionPackages(root: string, target: Target): Promise<string[]> {
  const { dependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const paths = await lockedPackages(root, Object.keys(dependencies));
  return target.hostNode ? paths : paths.filter((path) => !path.startsWith('node_modules/@koromix/'));
}

/** What vitest needs of the repository to run test files: sources, the build, and the packages of both. */
const REPOSITORY = [
  'package.json',
  'tsconfig.json',
  'vitest.config.ts',
  'src',
  'test',
  'scripts',
  'assets',
  'dist',
  'fixtures',
];

/** The repository itself, for test files that vitest runs. Only for a machine of this architecture. */
async function copyRepository({ root, target, vitest, signal }: Payload, image: string): Promise<void> {
  if (!target.hostNode)
    throw new LabFailure(`vitest's native parts are installed for this machine, not for ${target.name}`, {
      status: STATUS.usage,
    });
  const repository = join(image, 'lab/repository');
  const paths = [...(await productionPackages(root, target)), ...(await lockedPackages(root, ['vitest']))];
  for (const path of [...REPOSITORY, ...paths]) {
    await mkdir(dirname(join(repository, path)), { recursive: true });
    await cp(join(root, path), join(repository, path), {
      recursive: true,
      filter: (file) => !/\.map$/.test(file),
    });
  }
  const native = (await readdir(repository, { recursive: true })).filter((file) =>
    /linux-x64.*\.node$/.test(file),
  );
  await copyHostLibraries(
    native.map((file) => join(repository, file)),
    image,
    signal,
  );
  await copyFile(join(root, 'lab/guest/vitest-reporter.mjs'), join(image, 'lab/vitest-reporter.mjs'));
  await writeFile(join(image, 'lab/vitest'), vitest.join(' '));
}

/**
 * Bundles suites, and the workers that they start, for Node; the library and its dependencies stay outside,
 * found by name as by a user.
 */
async function bundleSuites({ root, suites, signal }: Payload, into: string): Promise<void> {
  const manifest = JSON.parse(await readFile(join(root, 'node_modules/tsup/package.json'), 'utf8')) as {
    bin: Record<string, string>;
  };
  const workers = (await readdir(join(root, 'lab/workers'))).map((file) => ({
    name: basename(file, '.ts'),
    source: join('lab/workers', file),
  }));
  const entries = [...suites, ...workers].flatMap(({ name, source }) => [`--entry.${name}`, source]);
  await command(
    process.execPath,
    [
      join(root, 'node_modules/tsup', manifest.bin['tsup']!),
      ...entries,
      ...['--config', 'lab/suites.tsup.config.ts', '--out-dir', into],
    ],
    { cwd: root, signal },
  );
}
