import { closeSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { type MemoryKind, type PagerPolicy } from '../api/index.js';
import { defaultHugePageSize, pageSize as basePageSize } from '../linux/index.js';
import { address, milliseconds, powerOfTwo, wholeNumber } from './arguments.js';
import { type CommandContext } from './context.js';
import { ENDING_SIGNALS } from './ending-signals.js';
import { EXIT, failureLines, UsageError } from './failure.js';
import { imageExtent, writeImage } from './guest-image.js';
import { ImageFile } from './image-file.js';
import { INHERITED_IMAGE, type RestoreJob, type RestoreMessage } from './restore-job.js';
import { liveText, plainText } from './restore-progress.js';
import { backendLines, headLines, reportLines } from './restore-report.js';
import { type RestoreOutcome, superviseRestore } from './restore-supervisor.js';
import { savedVm } from './saved-vm.js';
import { readVector, shippedVectors } from './vector-file.js';
import { resultJson } from './restore-json.js';
import { processTerminal, type Terminal } from './terminal.js';

export interface RestoreOptions {
  readonly base?: bigint;
  readonly vector?: string;
  readonly backend: RestoreJob['backend'];
  readonly memory: RestoreJob['memory'];
  readonly accessors: number;
  readonly faultAround: number;
  readonly prefetch: boolean;
  readonly latency: number;
  readonly policy: PagerPolicy['onSourceFailure'];
  readonly spin?: boolean;
  readonly seed: number;
  readonly accesses?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

const DEFAULT_VECTOR = 'B-060';
const REMOTE_PREFETCH_PAGES = 32;

/** `restore`: brings a guest's memory page by page as it is accessed, and checks all of it. */
export function restoreCommand(program: Command, context: CommandContext): void {
  program
    .command('restore')
    .description('restore a guest on demand: memory page by page as it is accessed, GIC and ITS through it')
    .argument('[image]', 'raw image of guest memory (default: one rebuilt from a recorded arm64 VM)')
    .addOption(
      new Option('--base <gpa>', "guest-physical address of the image's first byte").argParser(address),
    )
    .option('--vector <file#id>', 'vector whose GIC and ITS are restored from the image')
    .addOption(choice('--backend <name>', 'who serves', ['auto', 'userfaultfd', 'memory']))
    .addOption(choice('--memory <kind>', 'what guest memory is made of', ['anonymous', 'shmem', 'hugetlb']))
    .addOption(
      number('--accessors <n>', 'threads, processes and vCPUs that access memory', wholeNumber(0, 64), 7),
    )
    .addOption(number('--fault-around <pages>', 'pages fetched around a faulting one', powerOfTwo, 16))
    .option('--no-prefetch', 'bring only what is accessed, and the rest at the end')
    .addOption(number('--latency <ms>', 'delay of the source, as if it were remote', milliseconds, 0))
    .addOption(choice('--policy <what>', 'when the source fails for good', ['stop', 'poison', 'fail']))
    .option('--spin', 'spin for faults on a core of its own')
    .addOption(number('--seed <n>', 'of the random order of accesses', wholeNumber(0, 0xffff_ffff), 1))
    .option('--accesses', 'list each access that restoring the GIC and the ITS makes')
    .option('--json', 'one JSON document on standard output, nothing else')
    .option('--quiet', 'say nothing but what goes wrong')
    .action(async (image: string | undefined, options: RestoreOptions) => {
      context.exit(await restore(image, options));
    });
}

function choice(flags: string, what: string, choices: readonly [string, ...string[]]): Option {
  return new Option(flags, what).choices(choices).default(choices[0]);
}

function number(flags: string, what: string, parse: (text: string) => number, preset: number): Option {
  return new Option(flags, what).argParser(parse).default(preset);
}

/** Does all of it; the exit status. */
async function restore(image: string | undefined, options: RestoreOptions): Promise<number> {
  const terminal = processTerminal({ quiet: options.quiet === true || options.json === true });
  const { job, origin, unnamed } = prepare(image, options);
  const abort = new AbortController();
  const stop = (): void => abort.abort();
  for (const signal of ENDING_SIGNALS) process.on(signal, stop);
  try {
    for (const line of headLines(job, origin)) terminal.out(line);
    const screen = new Screen(terminal);
    const outcome = await superviseRestore(job, unnamed, (message) => screen.hear(message), abort.signal);
    screen.end();
    if (options.json) terminal.document(JSON.stringify(resultJson(outcome, job)));
    return conclude(outcome, job, options, terminal);
  } finally {
    if (unnamed !== undefined) closeSync(unnamed);
    for (const signal of ENDING_SIGNALS) process.off(signal, stop);
  }
}

/** Says how it ended; the exit status. */
function conclude(
  outcome: RestoreOutcome,
  job: RestoreJob,
  options: RestoreOptions,
  terminal: Terminal,
): number {
  if (outcome.kind === 'interrupted') {
    terminal.err(
      `interrupted: ${outcome.killed ? 'the restoring process was killed' : 'everything was given back'}`,
    );
    return EXIT.interrupted;
  }
  if (outcome.kind === 'failed') {
    for (const line of failureLines(outcome.failure)) terminal.err(line);
    return EXIT.failed;
  }
  for (const line of reportLines(outcome.result, job, options.accesses === true)) terminal.out(line);
  if (outcome.result.ok) return EXIT.ok;
  terminal.err('error: not everything came right; see above');
  return EXIT.failed;
}

/** Shows what comes while it goes on. */
class Screen {
  readonly #terminal: Terminal;
  readonly #live: ReturnType<Terminal['live']>;
  #shownAt_ms = 0;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    this.#live = terminal.live();
  }

  hear(message: RestoreMessage): void {
    switch (message.kind) {
      case 'opened':
        for (const line of backendLines(message.backend, this.#terminal.columns)) this.#terminal.out(line);
        return this.#terminal.out('');
      case 'progress':
        if (this.#live) return this.#live.show(liveText(message, this.#terminal.columns));
        if (message.elapsed_ms - this.#shownAt_ms < 1000) return;
        this.#shownAt_ms = message.elapsed_ms;
        return this.#terminal.out(plainText(message));
      case 'trouble':
      case 'failed':
      case 'result':
        return undefined; // said at the end
    }
  }

  end(): void {
    this.#live?.end();
  }
}

interface Prepared {
  readonly job: RestoreJob;
  /** What the image is, for the reader. */
  readonly origin: string;
  /** The descriptor of a rebuilt image, which has no name. */
  readonly unnamed: number | undefined;
}

/** What is to be restored. Errors: those of the files it names; UsageError. */
function prepare(image: string | undefined, options: RestoreOptions): Prepared {
  const pageSize = pageSizeOf(options.memory);
  const common = {
    backend: options.backend,
    memory: options.memory,
    pageSize,
    accessors: options.accessors,
    prefetch: options.prefetch,
    latency_ms: options.latency,
    seed: options.seed,
    policy: {
      faultAroundPages: options.faultAround,
      onSourceFailure: options.policy,
      wait: options.spin ? 'spin' : 'block',
      // What comes from afar ahead of time comes in small pieces: a demanded page may be behind one.
      ...(options.latency > 0 ? { prefetchPages: REMOTE_PREFETCH_PAGES } : {}),
    },
  } as const;
  if (image === undefined) return rebuilt(options, common);
  const vector = options.vector === undefined ? undefined : readVector(options.vector);
  const base = options.base ?? vector?.vm.memslots[0]!.gpa ?? 0n;
  const path = resolve(image);
  using file = ImageFile.open(path, base, pageSize);
  const table_bytes = vector ? Math.min(file.length, imageExtent(savedVm(vector)).table_bytes) : 0;
  const job = {
    ...common,
    image: { path, base, length: file.length },
    vector,
    table_bytes,
  };
  return { job, origin: image, unnamed: undefined };
}

type Common = Omit<RestoreJob, 'image' | 'vector' | 'table_bytes'>;

/** An image made of a vector. */
function rebuilt(options: RestoreOptions, common: Common): Prepared {
  if (options.base !== undefined) throw new UsageError('--base goes with an image');
  const vector = readVector(options.vector ?? `${shippedVectors('B')}#${DEFAULT_VECTOR}`);
  const vm = savedVm(vector);
  const extent = imageExtent(vm);
  const unnamed = writeImage(vm, extent);
  const job = {
    ...common,
    image: { path: INHERITED_IMAGE, ...extent },
    vector,
    table_bytes: extent.table_bytes,
  };
  return { job, origin: `rebuilt from vector ${vector.id}, recorded from a real arm64 KVM`, unnamed };
}

const SMALLEST_PAGE = 4096;

function pageSizeOf(memory: MemoryKind): number {
  const huge = memory === 'hugetlb' ? defaultHugePageSize() : undefined;
  if (huge !== undefined) return huge;
  try {
    return basePageSize();
  } catch {
    return SMALLEST_PAGE; // no native calls here: the model has pages of any size
  }
}
