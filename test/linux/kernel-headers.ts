import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A Debian suite whose linux-libc-dev knows everything that the codecs know. */
const SUITE = 'trixie-backports';
const CACHE = fileURLToPath(new URL('../../.cache/kernel-headers/', import.meta.url));
const UNPACKED = join(CACHE, SUITE);
const FETCH_TIMEOUT_MS = 90_000;

export type HeaderArchitecture = 'x64' | 'arm64';

const TRIPLETS = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' } as const;

export interface KernelHeaders {
  /** As linux/version.h says, such as `7.3.4`. */
  readonly version: string;
  /** Where `linux/` lies; `asm/` lies below the architecture's own folder. */
  readonly root: string;
  /** Why these are the installed headers and not newer ones, where they are. */
  readonly shortcoming: string | undefined;
}

function versionOf(root: string): string {
  const text = readFileSync(join(root, 'linux/version.h'), 'utf8');
  const code = Number(/LINUX_VERSION_CODE\s+(\d+)/.exec(text)?.[1]);
  return `${code >> 16}.${(code >> 8) & 0xff}.${code & 0xff}`;
}

/** The machine's own Debian archive, asked for another suite: no address is written down here. */
function sourcesOfSuite(): string {
  const folder = '/etc/apt/sources.list.d';
  const files = [
    '/etc/apt/sources.list',
    ...(existsSync(folder) ? readdirSync(folder).map((file) => join(folder, file)) : []),
  ].filter((file) => existsSync(file) && /\.(list|sources)$/.test(file));
  for (const file of files) {
    const text = readFileSync(file, 'utf8');
    const stanzas = file.endsWith('.sources') ? text.split(/\n\s*\n/) : text.split('\n').map(fromOneLine);
    const debian = stanzas.find(
      (stanza) => /^URIs:.*\/debian\/?$/m.test(stanza) && /^Types:.*\bdeb\b/m.test(stanza),
    );
    if (debian) return `${debian.replace(/^Suites:.*$/m, `Suites: ${SUITE}`).replace(/^#.*\n/gm, '')}\n`;
  }
  throw new Error('this machine has no Debian archive among its package sources');
}

/** `deb [options] uri suite components` as a stanza. */
function fromOneLine(line: string): string {
  const [, options, uri, components] = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+\S+\s+(.*)$/.exec(line) ?? [];
  if (!uri) return '';
  const signed = /signed-by=(\S+)/.exec(options ?? '')?.[1];
  return `Types: deb\nURIs: ${uri}\nSuites: ${SUITE}\nComponents: ${components}\n${signed ? `Signed-By: ${signed}\n` : ''}`;
}

/** Fetches and unpacks the package with state and cache of its own; nothing is installed. */
function fetchHeaders(): void {
  const sources = sourcesOfSuite();
  const work = join(CACHE, 'apt');
  for (const folder of ['lists/partial', 'archives/partial', 'sources']) {
    mkdirSync(join(work, folder), { recursive: true });
  }
  writeFileSync(join(work, 'sources/debian.sources'), sources);
  const settings = {
    'Dir::State': work,
    'Dir::State::status': '/var/lib/dpkg/status',
    'Dir::Cache': work,
    'Dir::Etc::SourceList': '/dev/null',
    'Dir::Etc::SourceParts': join(work, 'sources'),
    'APT::Sandbox::User': 'root',
    'Acquire::Retries': '0',
    'Acquire::http::Timeout': '10',
    'Acquire::https::Timeout': '10',
  };
  const options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  const apt = (...args: string[]): void => {
    const run = { cwd: work, timeout: FETCH_TIMEOUT_MS, stdio: 'pipe' } as const;
    execFileSync('apt-get', [...options, '-q', ...args], run);
  };
  apt('update', '--error-on=any');
  apt('download', 'linux-libc-dev');
  const archive = readdirSync(work).find((file) => /^linux-libc-dev_.*\.deb$/.test(file));
  if (!archive) throw new Error('apt-get downloaded nothing');
  const partial = `${UNPACKED}.partial`;
  rmSync(partial, { recursive: true, force: true });
  execFileSync('dpkg', ['-x', join(work, archive), partial], { timeout: FETCH_TIMEOUT_MS, stdio: 'pipe' });
  renameSync(partial, UNPACKED);
  rmSync(work, { recursive: true, force: true });
}

/** What apt said, rather than how it was called. */
function reasonOf(error: unknown): string {
  const { stderr, message } = error as { stderr?: Buffer; message: string };
  const complaint = /^E: (.*)$/m.exec(stderr?.toString() ?? '')?.[1];
  return complaint ?? message.split('\n')[0]!;
}

let found: KernelHeaders | undefined;

/** Newer kernel headers where they can be had, else the installed ones with the reason. */
export function kernelHeaders(): KernelHeaders {
  return (found ??= find());
}

function find(): KernelHeaders {
  const root = join(UNPACKED, 'usr/include');
  let shortcoming: string | undefined;
  try {
    if (!existsSync(root)) fetchHeaders();
    return { version: versionOf(root), root, shortcoming };
  } catch (error) {
    shortcoming = `newer headers could not be fetched (${reasonOf(error)})`;
  }
  return { version: versionOf('/usr/include'), root: '/usr/include', shortcoming };
}

/** One thing to ask the compiler: a C expression, under a macro that must exist for it to compile. */
export interface Question {
  readonly name: string;
  readonly expression: string;
  readonly guard: string;
}

/** A constant that is a macro of its own name. */
export const macro = (name: string): Question => ({ name, expression: name, guard: name });

export const sizeOf = (struct: string, guard: string): Question => ({
  name: `sizeof ${struct}`,
  expression: `sizeof(struct ${struct})`,
  guard,
});

export const offsetOf = (struct: string, member: string, guard: string): Question => ({
  name: `${struct}.${member}`,
  expression: `__builtin_offsetof(struct ${struct}, ${member})`,
  guard,
});

/**
 * The values of C expressions under an architecture's headers. Nothing is run: the values are
 * constants in the assembly, so headers of another architecture do as well. Both architectures are
 * LP64 with the same alignment of integers, so one compiler gives the layout of either.
 * Questions whose guard is not defined are missing from the answer.
 */
export function ask(
  headers: KernelHeaders,
  architecture: HeaderArchitecture,
  includes: readonly string[],
  questions: readonly Question[],
): Map<string, bigint> {
  const lines = questions.map(({ expression, guard }, index) => {
    return `#ifdef ${guard}\nconst unsigned long answer_${index} = (unsigned long)(${expression});\n#endif\n`;
  });
  const files = ['stddef.h', 'linux/ioctl.h', ...includes];
  const source = `${files.map((file) => `#include <${file}>\n`).join('')}${lines.join('')}`;
  const options = ['-S', '-w', '-x', 'c', '-', '-o', '-', ...flags(headers, architecture)];
  const assembly = execFileSync('gcc', options, { input: source, encoding: 'utf8' });
  const answers = assembly.matchAll(/^answer_(\d+):\s+\.(quad|xword|zero)\s+(-?\d+)$/gm);
  return new Map(
    [...answers].map(([, index, kind, value]) => {
      const number = kind === 'zero' ? 0n : BigInt.asUintN(64, BigInt(value!));
      return [questions[Number(index)]!.name, number];
    }),
  );
}

/** Compiler flags that put an architecture's kernel headers in place of the installed ones. */
function flags(headers: KernelHeaders, architecture: HeaderArchitecture): string[] {
  const own = execFileSync('gcc', ['-print-file-name=include'], { encoding: 'utf8' }).trim();
  const target = architecture === 'arm64' ? ['-U__x86_64__', '-U__x86_64', '-D__aarch64__'] : [];
  const asm = join(headers.root, TRIPLETS[architecture]);
  return ['-nostdinc', '-isystem', own, '-isystem', asm, '-isystem', headers.root, ...target];
}

export const hasHeadersOf = (headers: KernelHeaders, architecture: HeaderArchitecture): boolean =>
  existsSync(join(headers.root, TRIPLETS[architecture], 'asm/kvm.h'));

export function hasCompiler(): boolean {
  try {
    execFileSync('gcc', ['--version'], { stdio: 'pipe' });
    return true;
  } catch {
    return false;
  }
}
