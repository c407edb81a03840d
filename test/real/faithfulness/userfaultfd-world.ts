import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import {
  type Attachment,
  FaultBatch,
  type FaultPort,
  type MemoryLayout,
  ResolutionBatch,
} from '../../../src/api/index.js';
import { userfaultfd, type UserfaultfdBackendOptions } from '../../../src/backends/userfaultfd/index.js';
import { Mapping } from '../../../src/linux/index.js';
import { Actor } from '../userfaultfd/actor.js';
import { openShard, PAGE, resolveOn } from '../userfaultfd/scene.js';
import { ACCESSORS, PAGES, resolutionOf, type Site, siteWrites, type Step, type World } from './history.js';
import { answer, messages } from './observed.js';

/** Where in the kernel somebody waits for a page, or to have an event read. */
const WAITS = ['handle_userfault', 'userfaultfd_event_wait_completion'];
const MADV = { dontneed: 4, remove: 9 } as const;
const PUNCH_HOLE = 3; // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

/** What a thread was told to do and has not reported yet. */
interface Task {
  readonly words: (result: number) => string;
  result: number | undefined;
}

/** Threads for one world after another: starting one takes longer than a whole history. */
export class Crew implements AsyncDisposable {
  private constructor(readonly actors: readonly Actor[]) {}

  static async start(): Promise<Crew> {
    return new Crew(await Promise.all(Array.from({ length: ACCESSORS + 1 }, () => Actor.start())));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.actors.map((actor) => actor[Symbol.asyncDispose]()));
  }
}

/** A history on this machine's userfaultfd: real threads access and drop the memory. */
export class UserfaultfdWorld implements World {
  readonly #attachment: Attachment;
  readonly #port: FaultPort;
  readonly #crew: Crew;
  /** By actor; the last is who drops. */
  #alias: Mapping | undefined;
  readonly #tasks: (Task | undefined)[] = new Array<undefined>(ACCESSORS + 1).fill(undefined);

  private constructor(attachment: Attachment, crew: Crew) {
    this.#attachment = attachment;
    this.#port = openShard(attachment);
    this.#crew = crew;
  }

  static async open(
    layout: MemoryLayout,
    options: UserfaultfdBackendOptions,
    crew: Crew,
  ): Promise<UserfaultfdWorld> {
    return new UserfaultfdWorld(await userfaultfd(options).attach(layout), crew);
  }

  async step(step: Step): Promise<string> {
    const said = this.#do(step);
    await this.#settle();
    return [said, ...this.#states()].join('; ');
  }

  async close(): Promise<void> {
    // Whoever waits reads what closing leaves him; nobody may touch the memory when it is unmapped.
    for (;;) {
      await this.#settle();
      this.#states();
      if (this.#tasks.every((task) => task === undefined)) break;
      this.#take();
      const all = { first: 0, count: PAGES };
      for (const verb of ['zeropage', 'continue'] as const)
        for (let page = 0; page < PAGES; page++)
          if (this.#attachment.supports.verbs.includes(verb))
            resolveOn(this.#port, { verb, pages: { first: page, count: 1 } });
      if (this.#attachment.supports.verbs.includes('writeprotect'))
        resolveOn(this.#port, { verb: 'writeprotect', pages: all, protect: false });
      resolveOn(this.#port, { verb: 'wake', pages: all });
    }
    this.#port.close();
    this.#alias?.dispose();
    await this.#attachment.close();
  }

  #at(page: number): number {
    return Number(this.#attachment.layout.hvaOf(page));
  }

  #take(): FaultBatch {
    const batch = new FaultBatch(32);
    this.#port.take(batch, 'none', 0);
    return batch;
  }

  #do(step: Step): string {
    switch (step.do) {
      case 'access': {
        const { who, site, page, value } = step;
        if (site === 'external-mapping') return this.#pastMapping(who, page, value);
        return this.#begin(who, (actor) =>
          accessBy(actor, site as Exclude<Site, 'external-mapping'>, this.#at(page) + 8 * who, value),
        );
      }
      case 'drop':
        return this.#begin(ACCESSORS, (actor) => ({
          result: this.#drop(actor, step.how, this.#at(step.pages.first), step.pages.count * PAGE),
          words: (result) => (result === 0 ? 'dropped' : `drop errno ${-result}`),
        }));
      case 'take':
        return messages(this.#take(), (thread) =>
          String(this.#crew.actors.findIndex((actor) => actor.thread === thread)),
        );
      case 'resolve': {
        this.#port.staging.fill(step.value, 0, PAGES * PAGE);
        const rows = new ResolutionBatch(1);
        rows.push(resolutionOf(step));
        this.#port.resolve(rows);
        return answer(rows);
      }
    }
  }

  /** An access through a second mapping of the same memory, which nobody watches: it never waits. */
  #pastMapping(who: number, page: number, value: number): string {
    if (this.#tasks[who]) return 'busy';
    this.#alias ??= aliasOf(this.#attachment);
    const bytes = this.#alias.bytes();
    const at = page * PAGE + 8 * who;
    const write = siteWrites('external-mapping', value);
    if (write) bytes[at] = value;
    const read = bytes[at];
    this.#tasks[who] = { words: () => (write ? 'wrote' : `read ${read}`), result: 0 };
    return 'begins';
  }

  #drop(
    actor: Actor,
    how: Extract<Step, { do: 'drop' }>['how'],
    address: number,
    length: number,
  ): Promise<number> {
    if (how !== 'punch') return actor.call('madvise', address, length, MADV[how]);
    const { file } = this.#attachment.layout.regions[0]!;
    return actor.call('fallocate', file!.fd, PUNCH_HOLE, address - this.#at(0), length);
  }

  #begin(
    who: number,
    begin: (actor: Actor) => { readonly result: Promise<number>; readonly words: (result: number) => string },
  ): string {
    if (this.#tasks[who]) return 'busy';
    const { result, words } = begin(this.#crew.actors[who]!);
    const task: Task = { words, result: undefined };
    this.#tasks[who] = task;
    void result.then((value) => (task.result = value));
    return 'begins';
  }

  /**
   * Until everybody has reported or waits in the kernel. A thread that was woken is runnable from the moment
   * of the wake-up, within the ioctl or read that woke it, and a runnable thread is nowhere by /proc's
   * account; so nobody is taken to wait who has been let go.
   */
  async #settle(): Promise<void> {
    for (const [who, task] of this.#tasks.entries())
      while (task && task.result === undefined && !this.#waits(this.#crew.actors[who]!)) await setImmediate();
  }

  #waits({ thread }: Actor): boolean {
    return WAITS.includes(readFileSync(`/proc/self/task/${thread}/wchan`, 'latin1'));
  }

  #states(): string[] {
    return this.#tasks.flatMap((task, who) => {
      if (!task) return [];
      const name = who < ACCESSORS ? `${who} ` : '';
      if (task.result === undefined) return [who < ACCESSORS ? `${who} waits` : 'drop waits'];
      this.#tasks[who] = undefined;
      return [`${name}${task.words(task.result)}`];
    });
  }
}

function aliasOf({ layout }: Attachment): Mapping {
  const { file, length } = layout.regions[0]!;
  const place = { address: Number(layout.hvaOf(0)), length: Number(length), pageSize: PAGE };
  return Mapping.borrow({ kind: 'shmem', ...place, fd: file!.fd }).alias();
}

function accessBy(
  actor: Actor,
  site: Exclude<Site, 'external-mapping'>,
  address: number,
  value: number,
): { readonly result: Promise<number>; readonly words: (result: number) => string } {
  const read = (result: number): string => (result < 0 ? `errno ${-result}` : `read ${result}`);
  const wrote = (result: number): string => (result < 0 ? `errno ${-result}` : 'wrote');
  switch (site) {
    case 'vmm-load':
      return { result: actor.load(address), words: read };
    case 'external-vm-readv':
      return { result: actor.kernelLoad(address), words: read };
    case 'vmm-store':
      return { result: actor.store(address, value).then(() => 0), words: wrote };
    case 'vmm-syscall':
      return { result: actor.kernelStore(address, value), words: wrote };
  }
}
