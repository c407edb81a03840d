import { hex } from '../api/index.js';
import { stripHint } from './failure.js';
import { type RestoreJob } from './restore-job.js';
import { type RestoreOutcome } from './restore-supervisor.js';

/**
 * The document of `restore --json`. Addresses are hexadecimal strings, times say their unit in their name.
 * `pages.demand + around + prefetch + ensured + zero + raced = pages.all`.
 */
export function resultJson(outcome: RestoreOutcome, job: RestoreJob): object {
  const { image, memory, pageSize, policy } = job;
  const given = {
    image: {
      path: typeof image.path === 'string' ? image.path : null,
      base: hex(image.base),
      bytes: image.length,
    },
    vector: job.vector?.id ?? null,
    memory,
    page_bytes: pageSize,
    latency_ms: job.latency_ms,
    seed: job.seed,
    policy,
  };
  if (outcome.kind === 'interrupted') return { ok: false, interrupted: true, ...given };
  if (outcome.kind === 'failed') {
    const { code = null, hint = null } = outcome.failure;
    return { ok: false, error: { code, message: stripHint(outcome.failure), hint }, ...given };
  }
  const { result } = outcome;
  const { statistics } = result;
  return {
    ok: result.ok,
    ...given,
    backend: result.backend,
    pages: {
      all: statistics.pages,
      present: statistics.presentPages,
      demand: statistics.demandPages,
      around: statistics.aroundPages,
      prefetch: statistics.prefetchPages,
      ensured: statistics.ensuredPages,
      zero: statistics.zeroPages,
      raced: statistics.racedPages,
    },
    firstAccess_ms: result.firstAccess_ms ?? null,
    complete_ms: result.complete_ms,
    bytesPerSecond: image.length / (result.complete_ms / 1000),
    accessors: result.accessors,
    unavailable: result.unavailable,
    its: result.its
      ? { ...result.its, accesses: result.its.accesses.map((each) => ({ ...each, page: hex(each.page) })) }
      : null,
    prefetch: result.prefetch ?? null,
    statistics,
    verify: {
      ...result.verify,
      firstWrong: result.verify.firstWrong === undefined ? null : hex(result.verify.firstWrong),
    },
    leaks: result.leaks ?? null,
  };
}
