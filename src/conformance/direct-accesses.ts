import { type Attachment } from '../api/index.js';

/** Accesses that end the process if the memory goes while they are under way. */
export class DirectAccesses {
  readonly #through: Promise<void>[] = [];

  /** `through` resolves when it has ended. */
  add(through: Promise<void>): void {
    this.#through.push(through);
  }

  /**
   * Has an attachment give its memory back only after them. A pager closes its attachment as soon as every accessor is let
   * go, and one that was woken may not have run yet. One that was not let go shows as a closing that does not end.
   */
  outlivedBy(attachment: Attachment): Attachment {
    const close = attachment.close.bind(attachment);
    attachment.close = async () => {
      await Promise.all(this.#through);
      await close();
    };
    return attachment;
  }
}
