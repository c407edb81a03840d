import { type MessagePort } from 'node:worker_threads';
import { DemandPagingError, type PlainError, asDemandPagingError } from './error.js';
import { type Region } from './layout.js';
import { type ReadAnswer, type ZeroRange, zerosOf } from './read-answer.js';

/**
 * Where page contents come from. One source serves one resolver at a time.
 *
 * `read` fills `into` with the bytes at `offset` and returns how many it wrote: at once if the source is
 * `synchronous`, else a promise of it. Anything but `into.length` is SOURCE_LENGTH; a throw or a rejection is
 * SOURCE_FAILED; both are retried as the pager's policy says, never taken for zeros. A source that knows
 * which of the bytes are zeros need not write them, and says so ({@link SparseRead}): whole pages of them are
 * then installed without a copy, and without memory where the kernel has a zero page. `into` belongs to the
 * source until it answered; the resolver never hands it out twice.
 *
 * A source runs in the resolver's isolate and must not touch the memory being served.
 */
export interface PageSource {
  /**
   * Whether `read` answers at once, always. Only then can the resolver sleep in the kernel between faults.
   */
  readonly synchronous: boolean;
  /** Bytes that can be read. A region that reaches past it is refused when the pager opens. */
  readonly length: number;
  read(offset: number, into: Uint8Array): ReadAnswer | Promise<ReadAnswer>;
  /**
   * The address in this process at which `length` bytes from `offset` lie and stay unchanged while the source
   * is open, if there is one: saves the copy into staging. Never memory that may be truncated or that is
   * itself being paged. Undefined also where {@link read} would report zeros.
   */
  address?(offset: number, length: number): number | undefined;
  close?(): void | Promise<void>;
}

/** A source by module: imported in the resolver's isolate, its export called with the cloneable options. */
export interface ModuleSourceRef {
  /** A module specifier or URL that the resolver's isolate can import. */
  readonly module: string;
  readonly export: string;
  readonly options: unknown;
  /**
   * Its reads return soon enough for its resolver to share a thread with others, though it is synchronous: a
   * read delays theirs for as long as it takes. Default false. See {@link PagerPolicy.thread}.
   */
  readonly mayShare?: boolean;
}

/**
 * A source elsewhere, behind a message port. The resolver sends {@link SourceRequest}s; the other side
 * answers each with a {@link SourceReply} (see {@link servePort}). Always asynchronous. The port is
 * transferred. If the serving side is the thread that opened the pager, that thread must not touch
 * missing pages: the blocking accessors of {@link GuestMemory} refuse with DEADLOCK.
 */
export interface PortSourceRef {
  readonly port: MessagePort;
  readonly length: number;
  /** Whether the thread that opens the pager is the one that answers. */
  readonly servedHere: boolean;
}

/**
 * Functions do not cross isolates: sources are module references, ports, or objects of this isolate with an
 * embedded backend.
 */
export type SourceRef = ModuleSourceRef | PortSourceRef | PageSource;

export interface SourceRequest {
  readonly id: number;
  readonly offset: number;
  readonly length: number;
}

export type SourceReply =
  | { readonly id: number; readonly bytes: Uint8Array }
  /** `bytes` may be left out where all are zeros. */
  | {
      readonly id: number;
      readonly bytes?: Uint8Array;
      readonly length: number;
      readonly zeros: readonly ZeroRange[];
    }
  | { readonly id: number; readonly error: PlainError };

/** What a {@link ModuleSourceRef} names. */
export type OpenSource<Options> = (options: Options) => PageSource | Promise<PageSource>;

/** Whether a source's answer is yet to come. */
export const isPromise = (answer: ReadAnswer | Promise<ReadAnswer>): answer is Promise<ReadAnswer> =>
  typeof answer === 'object' && answer !== null && 'then' in answer;

export const isModuleSource = (ref: SourceRef): ref is ModuleSourceRef => 'module' in ref;
export const isPortSource = (ref: SourceRef): ref is PortSourceRef => 'port' in ref;

/**
 * Opens a source in this isolate. Errors: SOURCE_FAILED when its module or export is unavailable. `calling`:
 * called before and after the call of the module's export, which may never come back.
 */
export async function openSource(ref: SourceRef, calling: () => void = () => {}): Promise<PageSource> {
  if (isPortSource(ref)) return checkedSource(new PortSource(ref));
  if (!isModuleSource(ref)) return checkedSource(ref);
  let open: unknown;
  try {
    open = ((await import(ref.module)) as Record<string, unknown>)[ref.export];
  } catch (cause) {
    throw new DemandPagingError('SOURCE_FAILED', `the source module ${ref.module} cannot be imported`, {
      cause,
    });
  }
  if (typeof open !== 'function')
    throw new DemandPagingError('SOURCE_FAILED', `${ref.module} exports no function '${ref.export}'`);
  let source: PageSource;
  try {
    source = await called(() => (open as OpenSource<unknown>)(ref.options), calling);
  } catch (thrown) {
    throw asDemandPagingError(thrown, 'SOURCE_FAILED', 'the source cannot be opened');
  }
  return checkedSource(source, `${ref.export} of ${ref.module}`);
}

/** What a call answers; `calling` is called before it and after it, however it ends. */
export function called<T>(call: () => T, calling: () => void): T {
  calling();
  try {
    return call();
  } finally {
    calling();
  }
}

/** Refuses what is not a source before anything relies on it. What it has opened it may close. */
async function checkedSource(source: PageSource, name = 'the source'): Promise<PageSource> {
  const wrong = wrongOf(source);
  if (wrong === undefined) return source;
  await (source as Partial<PageSource> | undefined)?.close?.();
  throw new DemandPagingError('SOURCE_FAILED', `${name} gives no source: ${wrong}`, {
    hint: 'A source has synchronous (true or false), length (a whole number of bytes) and read(offset, into)',
  });
}

function wrongOf(source: unknown): string | undefined {
  if (typeof source !== 'object' || source === null) return `it is ${String(source)}`;
  const { synchronous, length, read } = source as Readonly<Record<keyof PageSource, unknown>>;
  if (typeof synchronous !== 'boolean') return `its synchronous is ${String(synchronous)}`;
  if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 0)
    return `its length is ${String(length)}`;
  return typeof read === 'function' ? undefined : `its read is ${typeof read}`;
}

/** Refuses a source that ends before a region does, before anything is served from it. Throws BAD_RANGE. */
export function checkCovers(length: number, regions: readonly Region[]): void {
  for (const region of regions) {
    if (region.sourceOffset + region.length <= BigInt(length)) continue;
    throw new DemandPagingError(
      'BAD_RANGE',
      `a region of ${region.length} bytes from source offset ${region.sourceOffset} reaches past the source's ${length} bytes`,
      { range: { start: region.gpa, length: region.length } },
    );
  }
}

interface Waiting {
  readonly into: Uint8Array;
  readonly resolve: (answer: ReadAnswer) => void;
  readonly reject: (error: Error) => void;
}

/** The resolver's end of a {@link PortSourceRef}. */
class PortSource implements PageSource {
  readonly synchronous = false;
  readonly length: number;
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  /** Why no answer will come any more. */
  #ended: DemandPagingError | undefined;

  constructor({ port, length }: PortSourceRef) {
    this.length = length;
    this.#port = port;
    port.on('message', (reply: SourceReply) => this.#settle(reply));
    port.on('close', () => this.#end('the source closed its port'));
    port.unref();
  }

  read(offset: number, into: Uint8Array): Promise<ReadAnswer> {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { into, resolve, reject });
      this.#port.ref();
      this.#port.postMessage({ id, offset, length: into.length } satisfies SourceRequest);
    });
  }

  close(): void {
    this.#end('the source was closed');
    this.#port.close();
  }

  #settle(reply: SourceReply): void {
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) return; // answered after its time-out, or twice
    this.#waiting.delete(reply.id);
    if (this.#waiting.size === 0) this.#port.unref();
    if ('error' in reply) return waiting.reject(DemandPagingError.fromPlain(reply.error));
    // What does not fit is counted, not copied: the resolver refuses the length.
    if (reply.bytes) waiting.into.set(reply.bytes.subarray(0, waiting.into.length));
    waiting.resolve('zeros' in reply ? { length: reply.length, zeros: reply.zeros } : reply.bytes.length);
  }

  #end(reason: string): void {
    this.#ended ??= new DemandPagingError('SOURCE_FAILED', reason);
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}

/**
 * Answers a {@link PortSourceRef}'s requests from `source` until the port closes. A failed read is reported
 * as a failure.
 */
export function servePort(port: MessagePort, source: PageSource): void {
  port.on('message', (request: SourceRequest) => {
    void answer(source, request).then((reply) => port.postMessage(reply));
  });
}

async function answer(source: PageSource, { id, offset, length }: SourceRequest): Promise<SourceReply> {
  const bytes = new Uint8Array(length);
  try {
    const zeros = zerosOf(await source.read(offset, bytes), length);
    if (zeros instanceof DemandPagingError) return { id, error: zeros.toPlain() };
    if (zeros.length === 0) return { id, bytes };
    return zeros[0]!.length === length ? { id, length, zeros } : { id, bytes, length, zeros };
  } catch (thrown) {
    return { id, error: asDemandPagingError(thrown, 'SOURCE_FAILED', 'the source failed').toPlain() };
  }
}
