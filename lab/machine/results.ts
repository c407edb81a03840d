import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type SuiteResult } from './outcome.js';
import { type RunResult } from './run.js';
import { type Target } from './target.js';

/** What one kernel series showed, as kept in git. */
export interface ResultsFile {
  readonly architecture: Target['name'];
  readonly kernel: { readonly release: string; readonly package: string };
  readonly machine: { readonly cpu: string; readonly node: string };
  readonly suites: Readonly<Record<string, SuiteResult & { readonly kernel: string }>>;
}

/** `7.3` of `7.3.4+deb13-cloud-arm64`. */
export function seriesOf(release: string): string {
  return /^\d+\.\d+/.exec(release)?.[0] ?? release;
}

/** Writes what a run showed into the results file of its kernel series; suites that did not run stay. */
export async function saveResults(root: string, target: Target, run: RunResult): Promise<string> {
  const { outcome, facts } = run;
  const release = outcome.release!;
  const folder = join(root, 'lab', target.name, 'results');
  const name = `${seriesOf(release)}.json`;
  await mkdir(folder, { recursive: true });
  const before = await readResults(join(folder, name));
  const suites: Record<string, SuiteResult & { kernel: string }> = { ...before?.suites };
  for (const [suite, result] of Object.entries(outcome.suites))
    suites[suite] = { kernel: release, ...result };
  const file: ResultsFile = {
    architecture: target.name,
    kernel: { release, package: facts.packageVersion },
    machine: { cpu: `QEMU ${target.machine.join(' ')}`, node: facts.node },
    suites: Object.fromEntries(Object.entries(suites).sort(([a], [b]) => (a < b ? -1 : 1))),
  };
  await writeFile(join(folder, name), `${JSON.stringify(file, null, 2)}\n`);
  return `lab/${target.name}/results/${name}`;
}

async function readResults(file: string): Promise<ResultsFile | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as ResultsFile;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
