import { type ChildProcess, fork } from 'node:child_process';
import { Worker } from 'node:worker_threads';
import { type PageRange } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { type MemoryLayout } from '../api/layout.js';
import { entryFile, startThread } from '../api/package-entry.js';
import { libc, NativeBlock, systemError } from '../linux/index.js';
import { type Accessor, type AccessRequest, type AccessResult } from './accessor.js';
import { type AccessorCommand, type AccessorData, type AccessorEvent } from './messages.js';
import { HOW, type NativeSite } from './touch.js';
import { type Walk, type WalkReport } from './walk.js';

/** Sites that {@link startAccessor} can exercise. */
export const NATIVE_SITES = Object.keys(HOW) as readonly NativeSite[];

/**
 * Starts an accessor of memory that is mapped in this process: on a thread of its own, or, for
 * `external-vm-readv`, in another process. It accesses nothing before the first call.
 * Preconditions: every region of `layout` is mapped here and stays so until the accessor has stopped.
 * Blocks: never; resolves when the accessor is ready, after some ten milliseconds for a thread, a hundred for
 * a process.
 * Errors: NO_PERMISSION where another process may not read this one (EPERM); HANDLER_DIED if it does not
 * start; NATIVE_UNAVAILABLE.
 */
export async function startAccessor(site: NativeSite, layout: MemoryLayout): Promise<Accessor> {
  const regions = layout.toSpecs();
  if (site !== 'external-vm-readv')
    return NativeAccessor.start(site, layout, threadChannel({ site, regions, other: undefined }));
  using trial = new NativeBlock(16);
  const other = { pid: libc().getpid(), trial: trial.address };
  return await NativeAccessor.start(site, layout, processChannel({ site, regions, other }));
}

/** The channel to a thread or process. */
interface Channel {
  post(command: AccessorCommand): void;
  listen(heard: (event: AccessorEvent) => void): void;
  /** Resolves when it has ended, with its error, if there was one. */
  readonly ended: Promise<unknown>;
  /** Ends it by force. */
  kill(): Promise<unknown>;
}

function threadChannel(data: AccessorData): Channel {
  const worker = startThread('accessors/thread-worker', { workerData: data });
  return {
    post: (command) => worker.postMessage(command),
    listen: (heard) => worker.on('message', heard),
    ended: endOf(worker),
    kill: () => worker.terminate(),
  };
}

function processChannel(data: AccessorData): Channel {
  // Without the flags of this process: a debugger's port, for one, cannot be opened twice.
  const child = fork(entryFile('accessors/process-worker'), {
    serialization: 'advanced',
    execArgv: [],
    env: { ...process.env, NODE_OPTIONS: '' },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const ended = endOf(child);
  child.send(data);
  return {
    post: (command) => child.connected && child.send(command),
    listen: (heard) => child.on('message', heard),
    ended,
    kill: () => {
      child.kill('SIGKILL');
      return ended;
    },
  };
}

/** Resolves when the process has ended and its channel is closed, with its error, if there was one. */
async function endOf(started: Worker | ChildProcess): Promise<unknown> {
  const emitter: NodeJS.EventEmitter = started;
  let cause: unknown;
  emitter.on('error', (error) => (cause ??= error));
  const disconnected = new Promise((resolve) => emitter.once('disconnect', resolve));
  const ended = await new Promise((resolve) => {
    emitter.once('exit', (code: number | null, signal?: string) => resolve(signal ?? (code || undefined)));
    // A process that could not be started does not exit.
    if (!(started instanceof Worker) && started.pid === undefined) emitter.once('error', resolve);
  });
  // The channel's descriptor may outlive the process briefly.
  if (!(started instanceof Worker) && started.pid !== undefined) await disconnected;
  return cause ?? ended;
}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/** An accessor's control side. */
class NativeAccessor implements Accessor {
  readonly how: string;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #gone: Error | undefined;
  #stopping: Promise<void> | undefined;
  #thread = 0;
  #ready: (thread: number, errno: number) => void = () => {};

  private constructor(
    readonly site: NativeSite,
    private readonly layout: MemoryLayout,
    private readonly channel: Channel,
  ) {
    this.how = HOW[site];
    channel.listen((event) => this.#hear(event));
    void channel.ended.then((cause) => this.#end(cause));
  }

  static async start(site: NativeSite, layout: MemoryLayout, channel: Channel): Promise<Accessor> {
    const accessor = new NativeAccessor(site, layout, channel);
    const errno = await new Promise<number>((resolve, reject) => {
      accessor.#ready = (thread, trial) => {
        accessor.#thread = thread;
        resolve(trial);
      };
      void channel.ended.then(() => reject(accessor.#gone ?? new Error('unreachable')));
    });
    if (errno === 0) return accessor;
    await accessor.stop();
    throw systemError('process_vm_readv', errno, 'another process cannot read the memory of this one');
  }

  get thread(): number {
    return this.#thread;
  }

  access({ page, offset = 0, bytes, length }: AccessRequest): Promise<AccessResult> {
    const { pageSize } = this.layout.regionOf(page);
    const span = bytes?.length ?? length ?? pageSize - offset;
    if (!Number.isInteger(offset) || offset < 0 || span < 1 || offset + span > pageSize) {
      throw new RangeError(`bytes ${offset}..${offset + span} are not inside a page of ${pageSize}`);
    }
    return this.#ask((id) => ({ kind: 'access', id, access: { page, offset, length: span, bytes } }));
  }

  walk(walk: Walk): Promise<WalkReport> {
    return this.#ask((id) => ({ kind: 'walk', id, walk }));
  }

  async discard(pages: PageRange): Promise<void> {
    if (this.site === 'external-vm-readv')
      throw new DemandPagingError('NOT_SUPPORTED', "another process cannot drop this one's pages");
    const errno = await this.#ask<number>((id) => ({ kind: 'discard', id, pages }));
    if (errno !== 0) throw systemError('madvise', errno, `cannot drop ${pages.count} pages`);
  }

  interrupt(): void {
    if (!this.#gone) this.channel.post({ kind: 'interrupt' });
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #stop(): Promise<void> {
    if (this.#gone) return;
    // A process that waits in the kernel is killed; a thread that waits there cannot be ended.
    if (this.#waiting.size > 0 && this.site === 'external-vm-readv') await this.channel.kill();
    else this.channel.post({ kind: 'stop' });
    await this.channel.ended;
  }

  #ask<Answer>(command: (id: number) => AccessorCommand): Promise<Answer> {
    if (this.#gone) return Promise.reject(this.#gone);
    const id = this.#nextId++;
    return new Promise<Answer>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.channel.post(command(id));
    });
  }

  #hear(event: AccessorEvent): void {
    if (event.kind === 'ready') return this.#ready(event.thread, event.errno);
    const waiting = this.#waiting.get(event.id);
    this.#waiting.delete(event.id);
    if (event.kind === 'failed') return waiting?.reject(new Error(event.message));
    waiting?.resolve(answerOf(event) as never);
  }

  #end(cause: unknown): void {
    const why = cause === undefined ? '' : `: ${cause instanceof Error ? cause.message : String(cause)}`;
    this.#gone = new DemandPagingError('HANDLER_DIED', `the ${this.site} accessor ended${why}`);
    for (const { reject } of this.#waiting.values()) reject(this.#gone);
    this.#waiting.clear();
  }
}

function answerOf(
  event: Exclude<AccessorEvent, { kind: 'ready' | 'failed' }>,
): AccessResult | WalkReport | number {
  switch (event.kind) {
    case 'accessed':
      return event.result;
    case 'walked':
      return event.report;
    case 'discarded':
      return event.errno;
  }
}
