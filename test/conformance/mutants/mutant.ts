import {
  type Attachment,
  type Backend,
  type FaultBatch,
  type FaultPort,
  FLAG,
  OUTCOME,
  openPort,
  type PageIndex,
  type ResolutionBatch,
  ResolutionBatch as Batch,
  type ResolverOptions,
  VERB,
} from 'demand-paging';
import { type Engine, type Failure, type PropertyName, type SteppedSubject } from 'demand-paging/conformance';
import {
  memoryBackend,
  type ModelAttachment,
  type ModelKernel,
  type ModelOptions,
} from 'demand-paging/backends/memory';
import { modelSubject } from '../model-subject.js';

/** A backend or an engine that does one thing wrong. */
export interface Mutant {
  readonly name: string;
  /** The property that it breaks. */
  readonly breaks: PropertyName;
  /** What goes wrong then. */
  readonly kind: Failure['kind'];
  /** Others that it touches, so that they fail with some plans; why is said there. */
  readonly mayBreak?: readonly PropertyName[];
  readonly subject: SteppedSubject;
}

/** What a mutated port can use: the model's own port, and its kernel, to do what a kernel could not. */
export interface Inner {
  readonly port: FaultPort;
  readonly kernel: ModelKernel;
  readonly attachment: ModelAttachment;
  /** Carries out one row on the model's port. */
  row(verb: number, page: PageIndex, span: number, from?: number, flags?: number): RowOutcome;
}

export interface RowOutcome {
  readonly outcome: number;
  readonly done: number;
  readonly errno: number;
}

/** What is wrong with a port: what it replaces. */
export type PortMutation = (inner: Inner) => Partial<Pick<FaultPort, 'take' | 'resolve' | 'resident'>>;

export interface MutantOptions {
  readonly name: string;
  readonly breaks: PropertyName;
  readonly kind: Failure['kind'];
  readonly mayBreak?: readonly PropertyName[];
  readonly port?: PortMutation;
  readonly attachment?: (attachment: Attachment, inner: ModelAttachment) => Partial<Attachment>;
  /** How the backend drops pages instead. */
  readonly discardEverywhere?: (kernel: ModelKernel) => ModelKernel['discardEverywhere'];
  readonly engine?: (options: ResolverOptions) => Engine;
  readonly model?: ModelOptions;
  readonly more?: Partial<SteppedSubject>;
}

/** Wraps the model in one fault. */
export function mutant(options: MutantOptions): Mutant {
  const { name, breaks, kind, mayBreak = [], engine, model = {}, more = {} } = options;
  const base = modelSubject(name, model, more);
  let last: ModelAttachment | undefined;
  const backend = (): Backend => {
    const backend = memoryBackend({ staging_bytes: 6 * 4096, ...model });
    return {
      name,
      probe: () => backend.probe(),
      async attach(layout) {
        const inner = await backend.attach(layout);
        last = inner;
        const discardEverywhere = options.discardEverywhere?.(inner.kernel);
        if (discardEverywhere) inner.kernel.discardEverywhere = discardEverywhere;
        return wrap(inner, options, await openPort(inner.shards[0]!.port));
      },
    };
  };
  const subject: SteppedSubject = {
    ...base,
    backend,
    stepping: () => last!.kernel,
    ...(engine && { engine }),
  };
  return { name, breaks, kind, mayBreak, subject };
}

function wrap(
  inner: ModelAttachment,
  { port: portMutation, attachment: attachmentMutation }: MutantOptions,
  innerPort: FaultPort,
): Attachment {
  const port = portMutation ? mutatedPort(innerPort, portMutation, inner) : innerPort;
  const attachment: Attachment = {
    layout: inner.layout,
    coverage: inner.coverage,
    supports: inner.supports,
    memory: inner.memory,
    shards: [{ ...inner.shards[0]!, port: { where: 'here', open: () => port } }],
    discard: (pages) => inner.discard(pages),
    moved: () => inner.moved(),
    abandonChild: (fd) => inner.abandonChild(fd),
    close: () => inner.close(),
  };
  return { ...attachment, ...attachmentMutation?.(attachment, inner) };
}

function mutatedPort(port: FaultPort, portMutation: PortMutation, attachment: ModelAttachment): FaultPort {
  const one = new Batch(1);
  const row: Inner['row'] = (verb, page, span, from = 0, flags = 0) => {
    one.clear();
    one.pushRow(verb, page, span, from, flags);
    port.resolve(one);
    return { outcome: one.outcome[0]!, done: one.done[0]!, errno: one.errno[0]! };
  };
  const wrapped: FaultPort = {
    staging: port.staging,
    take: (batch: FaultBatch, wait, timeout_ms) => port.take(batch, wait, timeout_ms),
    ready: () => port.ready(),
    resolve: (batch: ResolutionBatch) => port.resolve(batch),
    resident: (page) => port.resident(page),
    close: () => port.close(),
  };
  return Object.assign(wrapped, portMutation({ port, kernel: attachment.kernel, attachment, row }));
}

/** One row of a batch, as a mutant sees it. */
export interface Row {
  readonly verb: number;
  readonly page: PageIndex;
  readonly span: number;
  readonly from: number;
  readonly flags: number;
}

/**
 * A `resolve` that does something else with some rows, of those that are well-formed. What `instead` returns is
 * the row's outcome; undefined leaves the row as it is.
 */
export const rows =
  (inner: Inner, instead: (row: Row) => RowOutcome | undefined): FaultPort['resolve'] =>
  (batch) => {
    for (let at = 0; at < batch.count; at++) {
      const row = rowOf(batch, at);
      const own = isWellFormed(inner, row) ? instead(row) : undefined;
      const { outcome, done, errno } = own ?? passThrough(inner, row);
      batch.settle(at, outcome, done, errno);
    }
  };

export const rowOf = (batch: ResolutionBatch, at: number): Row => ({
  verb: batch.verb[at]!,
  page: batch.page[at]!,
  span: batch.span[at]!,
  from: batch.from[at]!,
  flags: batch.flags[at]!,
});

export const passThrough = ({ row }: Inner, { verb, page, span, from, flags }: Row): RowOutcome =>
  row(verb, page, span, from, flags);

function isWellFormed({ attachment, port }: Inner, { page, span, from, flags }: Row): boolean {
  const inside =
    Number.isInteger(page) && page >= 0 && span >= 1 && page + span <= attachment.layout.pageCount;
  return inside && from >= 0 && from + span * 4096 <= port.staging.length && !(flags & FLAG.direct);
}

export const isInstall = ({ verb, flags }: Row): boolean =>
  verb === VERB.copy || (verb === VERB.continue && (flags & FLAG.fill) !== 0);

export const ALL_DONE = (span: number): RowOutcome => ({ outcome: OUTCOME.installed, done: span, errno: 0 });
