// @ts-check
// `npm run check`: every static check, without the tests.
import { runChecks } from './checks.mjs';
import { ensureBuilt, ensureInstalled, requireNode } from './setup.mjs';

requireNode();
ensureInstalled();
ensureBuilt();
const { passed, failed } = runChecks();
process.stdout.write(
  `\n${passed.length} checks passed${failed.length ? `, failed: ${failed.join(', ')}` : ''}\n`,
);
process.exit(failed.length ? 1 : 0);
