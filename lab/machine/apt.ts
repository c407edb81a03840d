import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { command, type CommandOptions } from './command.js';
import { unavailable } from './failure.js';
import { type KernelChoice } from './target.js';

/** Releases by what they are today, so that nothing here goes out of date. */
const RELEASES: Readonly<Record<KernelChoice, { readonly release: string; readonly from?: Extra }>> = {
  newest: { release: 'stable', from: 'backports' },
  stable: { release: 'stable' },
  // Its point releases are few: the kernel that people run is in the security archive.
  oldstable: { release: 'oldstable', from: 'security' },
};

/** A suite beside a release's own, which the kernel is taken from. */
type Extra = 'backports' | 'security';

/** Releases of Debian, as source entries name them. */
const RELEASE = /^(stable|oldstable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke)$/;

/** Where Debian's packages come from on this machine, by its own entries. */
export interface PackageSources {
  readonly release: string;
  /** The archive of security updates, if there is an entry of it. */
  readonly security?: string;
}

export async function packageSources(signal: AbortSignal): Promise<PackageSources> {
  const uris = await command('apt-get', ['update', '--print-uris'], { signal });
  const all = [...uris.matchAll(/^'(\S+?)dists\/(\S+?)\/(?:In)?Release'/gm)];
  const release = all.find(([, base, suite]) => RELEASE.test(suite!) && !base!.includes('security'))?.[1];
  const security = all.find(
    ([, base, suite]) => suite!.endsWith('-security') && base!.includes('security'),
  )?.[1];
  if (release !== undefined) return { release, ...(security === undefined ? {} : { security }) };
  throw unavailable(
    'apt has no source entry for a Debian release',
    'The kernel is a package of Debian: add an entry to the files below /etc/apt',
  );
}

/** A private apt: its lists, its cache and its idea of what is installed are its own. */
export class PrivateApt {
  readonly #folder: string;
  readonly #options: CommandOptions;
  readonly #suite: string;

  private constructor(folder: string, suite: string, options: CommandOptions) {
    this.#folder = folder;
    this.#suite = suite;
    this.#options = options;
  }

  /** Reads the package lists of a kernel's suites. Errors: LabFailure with apt's complaint. */
  static async open(
    folder: string,
    architecture: string,
    choice: KernelChoice,
    sources: PackageSources,
    signal: AbortSignal,
    codename = codenameOf,
  ): Promise<PrivateApt> {
    for (const below of ['state/lists/partial', 'cache/archives/partial', 'none', 'packages'])
      await mkdir(join(folder, below), { recursive: true });
    await writeFile(join(folder, 'state/status'), '');
    const { release, from } = RELEASES[choice];
    const name = await codename(sources.release, release, folder, signal);
    const suites: [archive: string, suite: string][] = [[sources.release, name]];
    const extra = from === 'security' ? sources.security : sources.release;
    if (from !== undefined && extra !== undefined) suites.push([extra, `${name}-${from}`]);
    const keys = [
      '/usr/share/keyrings/debian-archive-keyring.gpg',
      '/usr/share/keyrings/debian-archive-keyring.pgp',
    ];
    const key = keys.find((file) => existsSync(file));
    const option = key === undefined ? '' : `[signed-by=${key}] `;
    const lines = suites.map(([archive, suite]) => `deb ${option}${archive} ${suite} main\n`);
    await writeFile(join(folder, 'sources.list'), lines.join(''));
    await writeFile(join(folder, 'apt.conf'), configuration(folder, architecture));
    const options = { signal, cwd: join(folder, 'packages'), env: { APT_CONFIG: join(folder, 'apt.conf') } };
    const apt = new PrivateApt(folder, suites.at(-1)![1], options);
    await apt.#get(['update', '--error-on=any']);
    return apt;
  }

  #get(args: readonly string[]): Promise<string> {
    // Last of all settings come those of the command line: the machine's own cannot undo these.
    const own = ['-o', 'Acquire::Retries=0', '-o', 'Acquire::http::Timeout=30', '-o', 'APT::Sandbox::User='];
    return command('apt-get', ['-q', ...own, ...args], this.#options);
  }

  /** The versioned packages that a meta-package would install. */
  async resolve(metaPackage: string): Promise<string[]> {
    const plan = await this.#get([
      '-s',
      'install',
      '-t',
      this.#suite,
      '--no-install-recommends',
      metaPackage,
    ]);
    const packages = [...plan.matchAll(/^Inst (\S+)/gm)].map(([, name]) => name!);
    const kernels = packages.filter((name) => /^linux-(image|binary|modules|base)-\d/.test(name));
    if (kernels.length > 0) return kernels;
    throw unavailable(`${metaPackage} of ${this.#suite} leads to no kernel`);
  }

  /** Downloads packages and unpacks them into one tree. apt checks what it downloads against signed lists. */
  async unpack(packages: readonly string[], tree: string): Promise<void> {
    await this.#get(['-t', this.#suite, 'download', ...packages]);
    const folder = join(this.#folder, 'packages');
    await mkdir(tree, { recursive: true });
    for (const file of await readdir(folder))
      await command('dpkg-deb', ['-x', join(folder, file), tree], this.#options);
  }

  /** The version of a downloaded package. */
  async versionOf(name: string): Promise<string> {
    const file = (await readdir(join(this.#folder, 'packages'))).find((file) => file.startsWith(`${name}_`));
    return decodeURIComponent(file?.split('_')[1] ?? 'unknown');
  }
}

/** What a release is called today. By that name mirrors have all its suites, up to date. */
export async function codenameOf(
  source: string,
  release: string,
  folder: string,
  signal: AbortSignal,
): Promise<string> {
  const file = join(folder, 'Release');
  const helper = '/usr/lib/apt/apt-helper';
  await command(helper, ['download-file', `${source}dists/${release}/Release`, file], { signal });
  const codename = /^Codename: (\S+)$/m.exec(await readFile(file, 'utf8'))?.[1];
  if (codename === undefined) throw unavailable(`the package source has no release called ${release}`);
  return codename;
}

function configuration(folder: string, architecture: string): string {
  const settings: Record<string, string> = {
    'Dir::State': `${folder}/state`,
    'Dir::State::status': `${folder}/state/status`,
    'Dir::Cache': `${folder}/cache`,
    'Dir::Etc::sourcelist': `${folder}/sources.list`,
    'Dir::Etc::sourceparts': `${folder}/none`,
    'Dir::Etc::preferences': `${folder}/none/preferences`,
    'Dir::Etc::preferencesparts': `${folder}/none`,
    'APT::Architecture': architecture,
    'Acquire::Languages': 'none',
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`);
  return `${lines.join('')}APT::Architectures { "${architecture}"; };\n`;
}
