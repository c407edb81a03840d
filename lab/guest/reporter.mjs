// @ts-check
// A reporter for node:test that writes one JSON line for each test that ended, with its full name.

/** @typedef {{ type: string, data: any }} TestEvent */

/** @param {unknown} error */
function reasonOf(error) {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
  return text.slice(0, 4000);
}

/** @param {AsyncIterable<TestEvent>} source */
export default async function* report(source) {
  const suite = process.env['LAB_SUITE'];
  /** @type {string[]} names of the tests that are under way, outermost first */
  const path = [];
  for await (const { type, data } of source) {
    if (type === 'test:start') {
      path.length = data.nesting;
      path.push(data.name);
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (data.details?.type === 'suite') continue;
    path.length = data.nesting;
    const line = {
      kind: 'test',
      suite,
      name: [...path, data.name].join(' > '),
      status: data.skip !== undefined ? 'skipped' : type === 'test:pass' ? 'passed' : 'failed',
      ms: Math.round(data.details?.duration_ms ?? 0),
      reason:
        data.skip !== undefined
          ? typeof data.skip === 'string'
            ? data.skip
            : undefined
          : type === 'test:fail'
            ? reasonOf(data.details?.error)
            : undefined,
    };
    yield `${JSON.stringify(line)}\n`;
  }
}
