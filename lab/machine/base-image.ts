import { existsSync } from 'node:fs';
import { chmod, copyFile, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type codenameOf, packageSources, PrivateApt } from './apt.js';
import { cached, sweepPartial } from './cache.js';
import { command } from './command.js';
import { LabFailure, unavailable } from './failure.js';
import { writeArchive } from './initramfs.js';
import { copyHostLibraries } from './host-libraries.js';
import { collectModules } from './kernel-modules.js';
import { type KernelChoice, type Target } from './target.js';

const DAY_MS = 86_400_000;

/** What the cached part of a machine is. */
export interface BaseFacts {
  readonly release: string;
  readonly packageVersion: string;
  readonly node: string;
  readonly fetched: string;
}

export interface BaseImage {
  readonly kernel: string;
  readonly archive: string;
  readonly facts: BaseFacts;
  readonly made: boolean;
}

export interface BaseRequest {
  readonly root: string;
  readonly cache: string;
  readonly target: Target;
  readonly choice: KernelChoice;
  readonly refresh: boolean;
  readonly signal: AbortSignal;
  readonly say: (line: string) => void;
  /** How to learn a release's codename; default: from the package source. */
  readonly codename?: typeof codenameOf;
}

/** Kernel, userland and Node of a target, from the cache or fetched. Errors: LabFailure. */
export async function baseImage(request: BaseRequest): Promise<BaseImage> {
  const { cache, target, choice, signal } = request;
  const parent = join(cache, target.name);
  const folder = join(parent, choice);
  await sweepPartial(parent, DAY_MS, Date.now());
  if (request.refresh) await rm(folder, { recursive: true, force: true });
  const koffi = await installedVersion(request.root, 'koffi');
  const recipe = JSON.stringify([
    1,
    target.kernelPackage,
    target.userland,
    target.modules,
    process.version,
    koffi,
  ]);
  const { facts, made } = await cached(folder, recipe, async (partial) => {
    request.say(`fetching the ${choice} kernel for ${target.name}`);
    try {
      return await fetchBase(request, partial, koffi);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof LabFailure && error.status === unavailable('').status) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw unavailable(
        `the ${choice} kernel for ${target.name} is unavailable: ${reason}`,
        'Nothing was kept of it; the next run fetches it anew',
        error,
      );
    }
  });
  return { kernel: join(folder, 'vmlinuz'), archive: join(folder, 'base.cpio'), facts, made };
}

async function fetchBase(request: BaseRequest, partial: string, koffi: string): Promise<BaseFacts> {
  const { target, choice, signal } = request;
  const scratch = join(partial, 'scratch');
  const tree = join(scratch, 'tree');
  const image = join(scratch, 'image');
  const sources = await packageSources(signal);
  const apt = await PrivateApt.open(
    join(scratch, 'apt'),
    target.debian,
    choice,
    sources,
    signal,
    request.codename,
  );
  const kernels = await apt.resolve(target.kernelPackage);
  await apt.unpack([...kernels, ...target.userland], tree);
  const modules = await modulesFolder(tree);
  const release = basename(modules);
  await copyFile(await kernelFile(tree, modules, release), join(partial, 'vmlinuz'));
  for (const folder of ['bin', 'lab', 'proc', 'sys', 'dev', 'tmp', 'run', 'root', 'etc'])
    await mkdir(join(image, folder), { recursive: true });
  const order = await collectModules(modules, target.modules, join(image, 'lab/modules'), signal);
  await writeFile(join(image, 'lab/modules/order'), order.map((file) => `${file}\n`).join(''));
  await copyFile(
    await firstOf([join(tree, 'bin/busybox'), join(tree, 'usr/bin/busybox')]),
    join(image, 'bin/busybox'),
  );
  const node = target.hostNode
    ? await hostNode(image, signal)
    : await foreignNode(request, tree, image, scratch, koffi);
  await writeArchive(image, join(partial, 'base.cpio'), signal);
  const packageVersion = await apt.versionOf(kernels.find((name) => /^linux-(binary|image)-/.test(name))!);
  await rm(scratch, { recursive: true, force: true });
  return { release, packageVersion, node, fetched: new Date().toISOString().slice(0, 10) };
}

async function modulesFolder(tree: string): Promise<string> {
  for (const parent of [join(tree, 'usr/lib/modules'), join(tree, 'lib/modules')]) {
    const [release] = existsSync(parent) ? await readdir(parent) : [];
    if (release !== undefined) return join(parent, release);
  }
  throw new LabFailure('the kernel packages hold no modules');
}

function kernelFile(tree: string, modules: string, release: string): Promise<string> {
  return firstOf([join(modules, 'vmlinuz'), join(tree, `boot/vmlinuz-${release}`)]);
}

async function firstOf(files: readonly string[]): Promise<string> {
  const found = files.find((file) => existsSync(file));
  if (found === undefined) throw new LabFailure(`the packages hold no ${basename(files[0]!)}`);
  return found;
}

/** The Node that runs this, with the libraries it is linked with. */
async function hostNode(image: string, signal: AbortSignal): Promise<string> {
  await copyFile(process.execPath, join(image, 'bin/node'));
  await chmod(join(image, 'bin/node'), 0o755);
  await copyHostLibraries([process.execPath], image, signal);
  return process.version;
}

/** Node of another architecture, of the same major version, and its libraries out of Debian's packages. */
async function foreignNode(
  { target, signal, root }: BaseRequest,
  tree: string,
  image: string,
  scratch: string,
  koffi: string,
): Promise<string> {
  const [major] = process.versions.node.split('.');
  const node = join(scratch, 'node');
  const version = await fetchPackage(`node-linux-${target.node}@${major}`, node, root, signal);
  await copyFile(join(node, 'bin/node'), join(image, 'bin/node'));
  await chmod(join(image, 'bin/node'), 0o755);
  const native = join(image, 'lab/native', '@koromix', `koffi-linux-${target.node}`);
  await fetchPackage(`@koromix/koffi-linux-${target.node}@${koffi}`, native, root, signal);
  for (const folder of ['lib', 'usr/lib'])
    if (existsSync(join(tree, folder))) await copyLibraries(join(tree, folder), join(image, folder));
  // Where /lib is a link to /usr/lib, the dynamic loader is still asked for below /lib.
  if (!existsSync(join(image, 'lib'))) await symlink('usr/lib', join(image, 'lib'));
  return `v${version}`;
}

/** Shared libraries and the loader; no modules, no conversion tables. */
async function copyLibraries(from: string, to: string): Promise<void> {
  await cp(from, to, {
    recursive: true,
    verbatimSymlinks: true,
    filter: (source) =>
      !/\/(modules|gconv|locale|firmware|linux-image-[^/]*)(\/|$)/.test(source.slice(from.length)),
  });
}

/** Downloads and unpacks a package of npm, which checks its digest. @returns its version */
async function fetchPackage(spec: string, into: string, root: string, signal: AbortSignal): Promise<string> {
  await mkdir(into, { recursive: true });
  const options = { signal, cwd: root };
  const packed = await command(
    'npm',
    ['pack', spec, '--json', '--loglevel', 'error', '--pack-destination', into],
    options,
  );
  const [{ filename, version }] = JSON.parse(packed) as [{ filename: string; version: string }];
  // npm prints the name of a scoped package's file with its scope.
  const file = join(into, filename.replace('@', '').replace('/', '-'));
  await command('tar', ['-xzf', file, '-C', into, '--strip-components=1'], options);
  await rm(file);
  return version;
}

export async function installedVersion(root: string, name: string): Promise<string> {
  const text = await readFile(join(root, 'node_modules', name, 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
