/** One event of the kernel's trace, with the functions that led to it. */
export interface TraceEvent {
  readonly thread: number;
  readonly cpu: number;
  readonly seconds: number;
  /** Of the trace event; for a probe of this census, the function's name. */
  readonly name: string;
  /** All of the line behind the name. */
  readonly text: string;
  /** Its `name=value` fields. */
  readonly fields: ReadonlyMap<string, string>;
  /** Functions, the innermost first: the probed one, its caller, and so on. */
  readonly stack: readonly string[];
}

export interface Trace {
  readonly events: readonly TraceEvent[];
  /** Entries that the kernel's buffer had no room for: what is missing here is unknown. */
  readonly lost: number;
}

// ` node-121   [001] d....    50.773218: kvm_read_guest: (kvm_read_guest+0x0/0xe0) gpa=0x80050000`
const LINE = /^\s*.*-(\d+)\s+(?:\(\s*\S+\)\s+)?\[(\d+)\]\s+\S+\s+([\d.]+): (.*)$/;
const EVENT = /^([^:\s]+): (.*)$/;
const FRAME = /^ => (.+)$/;
const WRITTEN = /^# entries-in-buffer\/entries-written: (\d+)\/(\d+)/;
const LOST = /\[LOST (\d+) EVENTS\]/;
const STACK = '<stack trace>';

interface Draft {
  readonly event: Omit<TraceEvent, 'stack'>;
  readonly stack: string[];
}

/**
 * Reads the text of a tracefs `trace` file. A stack belongs to the event before it of the same thread: events
 * of other CPUs may stand in between.
 */
export function parseTrace(text: string): Trace {
  const drafts: Draft[] = [];
  const last = new Map<number, Draft>();
  let frames: string[] | undefined;
  let lost = 0;
  for (const line of text.split('\n')) {
    const frame = FRAME.exec(line);
    if (frame !== null) {
      frames?.push(functionOf(frame[1]!));
      continue;
    }
    frames = undefined;
    const written = WRITTEN.exec(line);
    if (written !== null) lost += Number(written[2]) - Number(written[1]);
    lost += Number(LOST.exec(line)?.[1] ?? 0);
    const [, thread, cpu, seconds, rest] = LINE.exec(line) ?? [];
    if (rest === undefined) continue;
    if (rest === STACK) {
      frames = last.get(Number(thread))?.stack;
      continue;
    }
    const [, name, behind] = EVENT.exec(rest) ?? [];
    if (name === undefined) continue;
    const event = { thread: Number(thread), cpu: Number(cpu), seconds: Number(seconds), name, text: behind! };
    const draft: Draft = { event: { ...event, fields: fieldsOf(behind!) }, stack: [] };
    drafts.push(draft);
    last.set(event.thread, draft);
  }
  return { events: drafts.map(({ event, stack }) => ({ ...event, stack: ownStack(event, stack) })), lost };
}

/** `el0_svc_common.constprop.0`, `kvm_read_guest+0x50/0xe0`, `kvm_vm_ioctl [kvm]`: only the function. */
const functionOf = (frame: string): string => frame.replace(/(\+0x[\da-f]+.*| \[\w+\])$/, '').trim();

const fieldsOf = (text: string): ReadonlyMap<string, string> =>
  new Map([...text.matchAll(/(\w+)=(\S+)/g)].map(([, name, value]) => [name!, value!]));

/**
 * The stack without what the probe itself adds, and with the caller, which a probe at a function's very first
 * instruction finds in a register and the unwinder nowhere.
 */
function ownStack({ name, fields }: Omit<TraceEvent, 'stack'>, stack: readonly string[]): readonly string[] {
  const caller = fields.get('caller');
  const at = stack.indexOf(name);
  if (caller === undefined || at === -1) return stack;
  const above = stack.slice(at + 1);
  const called = functionOf(caller);
  return above[0] === called ? [name, ...above] : [name, called, ...above];
}
