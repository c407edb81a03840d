import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  GUEST_COVERAGE_CASES,
  GUEST_SITES,
  measureGuestCoverage,
  probeGuestCoverage,
} from 'demand-paging/guests';
import { hugePagePool } from '../../../src/linux/index.js';
import { reserveLocked } from '../../support/huge-pages.js';

/** Sites that nothing here can access memory from. */
const DECLARED_ONLY = ['kernel-cached-pfn', 'kernel-visibility', 'external-vhost'];
/** More than any case has sites. */
const HUGE_PAGES = 16;

let reserved: Disposable | undefined;
beforeAll(() => {
  if (process.getuid?.() === 0 && hugePagePool()) reserved = reserveLocked(HUGE_PAGES);
});
afterAll(() => reserved?.[Symbol.dispose]());

describe("coverage-is-true: a backend's declared coverage: equals the measured one", () => {
  test.for(GUEST_COVERAGE_CASES)('$name: $about', async (each, context) => {
    const lack = probeGuestCoverage(each).list.find(({ met }) => !met);
    if (lack) context.skip(`${lack.what}: ${lack.found}; ${lack.remedy}`);
    const { declared, seen } = await measureGuestCoverage(each);
    expect(seen.map(({ site, effect, address }) => ({ site, effect, address }))).toEqual(
      declared.map(({ site, effect, address }) => ({ site, effect, address })),
    );
    // Every site was tried that can be, and none was left without a clear result.
    const untried = seen.filter(({ evidence }) => evidence === 'declared').map(({ site }) => site);
    const privately = (each.memory ?? 'anonymous') === 'anonymous' && each.backend !== 'guest-memfd';
    expect(untried).toEqual([
      ...(each.backend === 'memslot-hole' ? ['vcpu-atomic'] : []),
      ...DECLARED_ONLY.slice(0, 2),
      ...(privately ? ['external-mapping'] : []),
      ...DECLARED_ONLY.slice(2),
    ]);
  });
});

describe('userfaultfd memory under a guest', () => {
  test.for([
    { about: 'private memory', memory: 'anonymous', options: {} },
    { about: 'a memory file', memory: 'shmem', options: {} },
    { about: 'user mode only', memory: 'anonymous', options: { userModeOnly: true } },
    { about: 'every access fails', memory: 'anonymous', options: { sigbus: true } },
  ] as const)('$about: vCPUs find the declared effects', async ({ memory, options }, context) => {
    const choice = { backend: 'userfaultfd', memory, userfaultfd: options } as const;
    const lack = probeGuestCoverage(choice).list.find(({ met }) => !met);
    if (lack) context.skip(`${lack.what}: ${lack.found}; ${lack.remedy}`);
    const { declared, seen } = await measureGuestCoverage(choice);
    expect(seen.map(({ effect }) => effect)).toEqual(declared.map(({ effect }) => effect));
    const measured = seen.filter(({ evidence }) => evidence === 'measured').map(({ site }) => site);
    expect(measured).toEqual([...GUEST_SITES]);
  });
});
