import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BaseFacts, baseImage } from './base-image.js';
import { findProgram } from './command.js';
import { LabFailure, unavailable } from './failure.js';
import { joinArchives } from './initramfs.js';
import { boot, type Ended, noQemu } from './machine.js';
import { Outcome } from './outcome.js';
import { planOf, type Suite, writePayload } from './payload.js';
import { readLine } from './record.js';
import { type KernelChoice, type Target } from './target.js';

/** Programs that the lab calls, and Debian's packages of them. */
const NEEDS: ReadonlyArray<readonly [program: string, debianPackage: string]> = [
  ['apt-get', 'apt'],
  ['dpkg-deb', 'dpkg'],
  ['cpio', 'cpio'],
  ['xz', 'xz-utils'],
  ['tar', 'tar'],
  ['npm', 'npm'],
];

export interface RunRequest {
  readonly root: string;
  readonly target: Target;
  readonly choice: KernelChoice;
  readonly suites: readonly Suite[];
  readonly vitest: readonly string[];
  readonly memory: number;
  readonly timeLimit_ms: number;
  readonly bootLimit_ms: number;
  readonly refresh: boolean;
  readonly keep: boolean;
  readonly environment: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** What the reader is to know of progress. */
  readonly say: (line: string) => void;
  readonly onConsole: (text: string) => void;
}

export interface RunResult {
  readonly outcome: Outcome;
  readonly facts: BaseFacts;
  /** Seconds from QEMU's start to its end. */
  readonly machineSeconds: number;
}

/** Says what is missing here before anything is fetched. Errors: LabFailure, unavailable. */
export function checkNeeds(target: Target): void {
  if (findProgram(target.qemu.program) === undefined) throw noQemu(target);
  const missing = NEEDS.filter(([program]) => findProgram(program) === undefined);
  if (missing.length > 0)
    throw unavailable(
      `the lab needs ${missing.map(([program]) => program).join(', ')}`,
      `apt-get install ${missing.map(([, name]) => name).join(' ')}; the lab works on Debian and its like`,
    );
}

/** Boots one kernel, runs the suites in it and gathers what they say. Errors: LabFailure. */
export async function runLab(request: RunRequest): Promise<RunResult> {
  const { root, target, signal, say } = request;
  checkNeeds(target);
  const cache = process.env['DEMAND_PAGING_LAB_CACHE'] ?? join(root, '.cache', 'lab');
  const base = await baseImage({ ...request, cache });
  const { release, packageVersion, node, fetched } = base.facts;
  say(`kernel ${release} (${packageVersion}, fetched ${fetched}), node ${node}`);
  const kept = join(root, '.cache', 'lab', 'last', target.name);
  await rm(kept, { recursive: true, force: true });
  await mkdir(kept, { recursive: true });
  // Short, because a socket's path may have 107 characters.
  const folder = await mkdtemp(join(tmpdir(), 'lab-'));
  try {
    const initrd = join(folder, 'initrd.cpio');
    const payload = join(folder, 'payload.cpio');
    const suiteLimit = Math.ceil(request.timeLimit_ms / 1000);
    await writePayload({ ...request, suiteLimit }, folder, payload);
    await joinArchives([base.archive, payload], initrd, signal);
    const started = performance.now();
    const outcome = await runMachine(request, base.kernel, { initrd, folder, kept, suiteLimit });
    const machineSeconds = Math.round((performance.now() - started) / 100) / 10;
    if (request.keep) await copyFile(initrd, join(kept, 'initrd.cpio'));
    return { outcome, facts: base.facts, machineSeconds };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What a machine needs of one run, and where it leaves its console and files. */
export interface MachineRun {
  readonly initrd: string;
  readonly folder: string;
  readonly kept: string;
  readonly suiteLimit: number;
}

/**
 * Boots what was built and gathers what the guest says. Errors: LabFailure, when the machine did not come to
 * its end.
 */
export async function runMachine(
  request: Omit<RunRequest, 'root' | 'choice' | 'refresh' | 'keep' | 'environment'>,
  kernel: string,
  run: MachineRun,
): Promise<Outcome> {
  const outcome = new Outcome(run.suiteLimit);
  const consoleFile = join(run.kept, 'console.log');
  let begun = (): void => {};
  const booted = new Promise<void>((resolve) => (begun = resolve));
  const ended = await boot({
    ...request,
    ...run,
    kernel,
    consoleFile,
    booted,
    onLine: (text) => {
      const line = readLine(text);
      outcome.take(line);
      if (line?.kind === 'start') {
        request.say(`booted in ${line.uptime} s`);
        begun();
      }
    },
  });
  outcome.close(planOf(request));
  await keepFiles(outcome, join(run.kept, 'files'));
  await explain(ended, outcome, consoleFile, request);
  return outcome;
}

/** Throws what kept the machine from finishing, if something did. */
async function explain(
  ended: Ended,
  outcome: Outcome,
  consoleFile: string,
  request: Pick<RunRequest, 'bootLimit_ms' | 'timeLimit_ms'>,
): Promise<void> {
  if (outcome.finished && ended.how === 'ended') return;
  const console = await readFile(consoleFile, 'utf8');
  const panic = /Kernel panic[^\r\n]*/.exec(console)?.[0];
  const where = outcome.running === undefined ? '' : ` while ${outcome.running} ran`;
  const hint = `The console is kept in ${consoleFile}`;
  if (panic !== undefined) throw new LabFailure(`the guest's kernel panicked${where}: ${panic}`, { hint });
  if (ended.how === 'boot-limit')
    throw new LabFailure(`the kernel did not boot within ${request.bootLimit_ms / 1000} s`, { hint });
  if (ended.how === 'time-limit')
    throw new LabFailure(`the time limit of ${request.timeLimit_ms / 1000} s passed${where}`, { hint });
  if (outcome.release === undefined) {
    const said = ended.complaint || `QEMU ended with status ${ended.status}`;
    throw new LabFailure(`the kernel did not boot: ${said}`, { hint });
  }
  throw new LabFailure(`the machine went away${where}: ${ended.complaint || `QEMU status ${ended.status}`}`, {
    hint,
  });
}

async function keepFiles(outcome: Outcome, folder: string): Promise<void> {
  if (outcome.files.length > 0) await mkdir(folder, { recursive: true });
  for (const { name, text } of outcome.files) await writeFile(join(folder, name), text);
}
