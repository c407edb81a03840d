/** Why nothing can be measured here, and what would help: shown without a stack. */
export class CannotMeasure extends Error {
  constructor(
    message: string,
    readonly hint: string,
  ) {
    super(message);
    this.name = 'CannotMeasure';
  }
}
