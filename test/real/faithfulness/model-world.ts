import { FaultBatch, type MemoryLayout, ResolutionBatch } from '../../../src/api/index.js';
import {
  memoryBackend,
  type ModelAccess,
  type ModelAttachment,
  type ModelOptions,
  type Stepper,
} from '../../../src/backends/memory/index.js';
import { ACCESSORS, resolutionOf, siteWrites, type Step, type World } from './history.js';
import { answer, messages } from './observed.js';

/** A history on the model: everybody runs until they can run no more, as on a machine left alone. */
export class ModelWorld implements World {
  readonly #attachment: ModelAttachment;
  readonly #accesses: (ModelAccess | undefined)[] = new Array<undefined>(ACCESSORS).fill(undefined);
  #drop: Stepper | undefined;

  private constructor(attachment: ModelAttachment) {
    this.#attachment = attachment;
    attachment.kernel.preempt = () => {};
  }

  static async open(layout: MemoryLayout, options: ModelOptions): Promise<ModelWorld> {
    return new ModelWorld(await memoryBackend(options).attach(layout));
  }

  async step(step: Step): Promise<string> {
    const said = this.#do(step);
    this.#settle();
    return [said, ...this.#states()].join('; ');
  }

  close(): Promise<void> {
    return this.#attachment.close();
  }

  #do(step: Step): string {
    const { kernel, port } = this.#attachment;
    switch (step.do) {
      case 'access': {
        const { who, site, page, value } = step;
        if (this.#accesses[who]) return 'busy';
        const write = siteWrites(site, value) ? { bytes: Uint8Array.of(value) } : { length: 1 };
        this.#accesses[who] = kernel.access({ site, page, offset: 8 * who, ...write });
        return 'begins';
      }
      case 'drop':
        if (this.#drop) return 'busy';
        this.#drop = kernel.discard(step.pages, step.how);
        return 'begins';
      case 'take': {
        const batch = new FaultBatch(32);
        port.take(batch);
        return messages(batch, (thread) =>
          String(this.#accesses.findIndex((access) => access?.thread === thread)),
        );
      }
      case 'resolve': {
        port.staging.fill(step.value);
        const rows = new ResolutionBatch(1);
        rows.push(resolutionOf(step));
        port.resolve(rows);
        return answer(rows);
      }
    }
  }

  #settle(): void {
    const all = (): Stepper[] => [...this.#accesses, this.#drop].filter((one) => one !== undefined);
    for (let one; (one = all().find(({ runnable }) => runnable));) one.step();
  }

  /** Where everybody is who was under way; whoever has ended is told once. */
  #states(): string[] {
    const states = this.#accesses.flatMap((access, who) => {
      if (!access) return [];
      if (!access.ended) return [`${who} waits`];
      this.#accesses[who] = undefined;
      return [
        `${who} ${access.errno ? `errno ${access.errno}` : access.write ? 'wrote' : `read ${access.bytes[0]}`}`,
      ];
    });
    if (this.#drop) states.push(this.#drop.ended ? 'dropped' : 'drop waits');
    if (this.#drop?.ended) this.#drop = undefined;
    return states;
  }
}
