import { appendFileSync, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseTrace, type Trace } from './trace-event.js';
import { isTransfer, plainName, probesFor } from './watched.js';

const TRACEFS = '/sys/kernel/tracing';
const GROUP = 'census';
const EXIT_EVENT = 'kvm/kvm_userspace_exit';
const BUFFER_KB = 16_384;

/**
 * What a tracer watches: everything, with stacks; or reads and writes only, without, for runs with very many.
 */
export type Detail = 'census' | 'witness';

/**
 * Probes at the kernel's ways to guest memory, in a trace buffer of their own. Requires: root, tracefs
 * mounted, a kernel with kprobe events.
 */
export class Tracer implements Disposable {
  /** Functions that are watched, and those that this kernel does not let be. */
  readonly watched: readonly string[];
  readonly refused: readonly string[];
  readonly #instance = join(TRACEFS, 'instances', GROUP);

  private constructor(detail: Detail) {
    mkdirSync(this.#instance, { recursive: true });
    writeFileSync(join(this.#instance, 'tracing_on'), '0');
    writeFileSync(join(this.#instance, 'buffer_size_kb'), String(BUFFER_KB));
    const wanted = (name: string): boolean => detail === 'census' || isTransfer(name);
    const probes = probesFor(functions(), process.arch as 'arm64' | 'x64', GROUP).filter(({ name }) =>
      wanted(name),
    );
    const refused: string[] = [];
    for (const { name, definition } of probes)
      try {
        appendFileSync(join(TRACEFS, 'kprobe_events'), `${definition}\n`);
      } catch {
        refused.push(name);
      }
    this.refused = refused;
    this.watched = probes.map(({ name }) => name).filter((name) => !refused.includes(name));
    for (const name of this.watched) {
      if (detail === 'census')
        writeFileSync(join(this.#instance, 'events', GROUP, name, 'trigger'), 'stacktrace');
      this.#enable(`${GROUP}/${name}`, true);
    }
    this.#enable(EXIT_EVENT, true);
  }

  /** A tracer, or why there is none here. */
  static open(detail: Detail): Tracer | string {
    if (!existsSync(join(TRACEFS, 'kprobe_events'))) return 'this kernel has no kprobe events in tracefs';
    return new Tracer(detail);
  }

  /** What the kernel does to guest memory, on any thread, while `body` runs. */
  during<T>(body: () => T): { readonly result: T; readonly trace: Trace } {
    writeFileSync(join(this.#instance, 'trace'), '');
    writeFileSync(join(this.#instance, 'tracing_on'), '1');
    let result: T;
    try {
      result = body();
    } finally {
      writeFileSync(join(this.#instance, 'tracing_on'), '0');
    }
    return { result, trace: parseTrace(readFileSync(join(this.#instance, 'trace'), 'utf8')) };
  }

  [Symbol.dispose](): void {
    this.#enable(EXIT_EVENT, false);
    for (const name of this.watched) this.#enable(`${GROUP}/${name}`, false);
    // With the instance go its triggers.
    rmdirSync(this.#instance);
    for (const name of this.watched) appendFileSync(join(TRACEFS, 'kprobe_events'), `-:${GROUP}/${name}\n`);
  }

  #enable(event: string, on: boolean): void {
    writeFileSync(join(this.#instance, 'events', event, 'enable'), on ? '1' : '0');
  }
}

/** What may be probed by name. */
function functions(): ReadonlySet<string> {
  const lines = readFileSync(join(TRACEFS, 'available_filter_functions'), 'utf8').split('\n');
  const names = lines.map((line) => line.split(' ')[0]!);
  // Of a function that exists only as a compiler's copy, the arguments are not where they were.
  return new Set(names.filter((name) => plainName(name) === name));
}
