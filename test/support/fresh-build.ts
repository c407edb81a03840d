import { whyBuild } from '../../scripts/setup.mjs';

/**
 * Workers run from `dist`. A test that starts one must not run yesterday's; a test that starts none
 * need not wait for a build. So this only warns, and `npm test` always builds first.
 */
export default function setup(): void {
  const reason = whyBuild(false);
  if (reason !== undefined)
    process.stderr.write(`${reason}: workers started by these tests come from there\n`);
}
