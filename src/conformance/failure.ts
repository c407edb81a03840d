/** A property does not hold: what was seen, and what should have been. */
export class PropertyFailure extends Error {
  override readonly name = 'PropertyFailure';
}

/** Nothing goes on any more, though somebody still waits. */
export class Stuck extends PropertyFailure {}

/** Throws {@link PropertyFailure} unless `holds`; the message is made only then. */
export function must(holds: boolean, message: string | (() => string)): asserts holds {
  if (!holds) throw new PropertyFailure(typeof message === 'string' ? message : message());
}
