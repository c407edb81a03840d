/**
 * The longest look before a sleep, in milliseconds: about what waking an accessor on another cpu, and being woken
 * there, takes where that is dear, as in a virtual machine. KVM's halt_poll_ns has the same default, for the same reason.
 */
export const LOOK_MS = 0.2;
/** Most sleeps without looking first. */
const MOST_SLEEPS = 256;

/**
 * Whether looking for the next message a moment longer is worth it before sleeping.
 *
 * An accessor that was just let go often faults again sooner than this thread could fall asleep and be woken
 * on another cpu. Where that is not so (the accessor shares this cpu, or faults are rare), looking is wasted
 * time: each miss doubles the number of sleeps until it is tried again, a find begins anew. So at worst one
 * sleep in {@link MOST_SLEEPS} comes {@link LOOK_MS} late.
 */
export class Patience {
  #sleeps = 0;
  #penalty = 1;

  /** Asked once before every sleep. */
  ask(): boolean {
    if (this.#sleeps === 0) return true;
    this.#sleeps--;
    return false;
  }

  found(): void {
    this.#penalty = 1;
  }

  missed(): void {
    this.#sleeps = this.#penalty;
    this.#penalty = Math.min(MOST_SLEEPS, this.#penalty * 2);
  }
}
