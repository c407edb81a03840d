import { describe, expect, test } from 'vitest';
import { blocking, exiting, type ModelMechanism } from 'demand-paging/backends/memory';
import {
  before,
  defineUapi,
  evaluate,
  kvmUserfault,
  type UapiDefinition,
  VCPU_SITES,
} from 'demand-paging/prototypes';

const GOOD: UapiDefinition<object> = {
  name: 'sample',
  source: { title: 'T', author: 'A', date: '2026', reference: 'R', status: 'S' },
  constants: [{ name: 'SAMPLE_FLAG', value: 1 }],
  structs: [
    {
      name: 'sample_mark',
      fields: [
        { name: 'start', type: 'u64' },
        { name: 'flags', type: 'u32' },
        { name: 'pad', type: 'u32' },
      ],
    },
  ],
  ioctls: [
    { name: 'SAMPLE_MARK', on: 'vm', number: 1, direction: 'w', struct: 'sample_mark', does: 'marks' },
  ],
  verbs: ['copy', 'wake'],
  defaults: {},
  kernelSide: () => ({ sites: before(VCPU_SITES, exiting()) }),
};

const [STRUCT] = GOOD.structs!;
const [IOCTL] = GOOD.ioctls!;

test('what is refused below is accepted but for that', () => {
  expect(defineUapi(GOOD).name).toBe('sample');
});

describe('defineUapi refuses', () => {
  const cases: readonly [string, Partial<UapiDefinition<object>>, RegExp][] = [
    ['a name that is not in kebab-case', { name: 'My UAPI' }, /kebab-case/],
    ['a name that is no identifier', { constants: [{ name: 'A-B', value: 1 }] }, /no identifier/],
    ['a name used twice', { constants: [{ name: 'SAMPLE_MARK', value: 1 }] }, /twice/],
    [
      'a field that needs implicit padding',
      {
        structs: [
          {
            name: 'sample_mark',
            fields: [
              { name: 'flags', type: 'u32' },
              { name: 'start', type: 'u64' },
            ],
          },
        ],
      },
      /u64 at offset 4/,
    ],
    [
      'a structure with padding at its end',
      { structs: [{ name: 'sample_mark', fields: STRUCT!.fields.slice(0, 2) }] },
      /multiple of 8/,
    ],
    ['a structure without fields', { structs: [{ name: 'sample_mark', fields: [] }] }, /no fields/],
    [
      'a field named twice',
      {
        structs: [
          {
            name: 'sample_mark',
            fields: [
              { name: 'start', type: 'u64' },
              { name: 'start', type: 'u64' },
            ],
          },
        ],
      },
      /names a field twice/,
    ],
    [
      'an array of no elements',
      { structs: [{ name: 'sample_mark', fields: [{ name: 'start', type: 'u64', count: 0 }] }] },
      /0 elements/,
    ],
    ['an ioctl whose structure is not defined', { structs: [] }, /does not fit/],
    [
      'an ioctl with a structure and no direction',
      { ioctls: [{ ...IOCTL!, direction: 'none' }] },
      /does not fit/,
    ],
    ['an ioctl number past a byte', { ioctls: [{ ...IOCTL!, number: 256 }] }, /0 to 255/],
    [
      'an ioctl with the number of another',
      { ioctls: [IOCTL!, { ...IOCTL!, name: 'SAMPLE_OTHER' }] },
      /has the number of SAMPLE_MARK/,
    ],
    ['a definition that brings no contents', { verbs: ['wake'] }, /brings contents/],
  ];
  test.each(cases)('%s', (_what, change, message) => {
    expect(() => defineUapi({ ...GOOD, ...change })).toThrow(message);
  });
});

describe('evaluating some properties', () => {
  test('a name that is none is refused', async () => {
    await expect(evaluate(kvmUserfault, {}, { only: ['no-such'] })).rejects.toThrow(
      /there is no property 'no-such': install-once, /,
    );
  });

  test('a path without one property to run it is refused', async () => {
    await expect(evaluate(kvmUserfault, {}, { path: '1:2' })).rejects.toThrow(/a path is of one property/);
  });

  test('a failure is repeated by its title, its seed and its path', async () => {
    const use = { publish: 'before' } as const;
    const only = ['no-zero-leak, read while its page is brought'];
    const first = await evaluate(kvmUserfault, use, { seed: 1, runs: 200, only });
    const [found] = first.results;
    if (found?.outcome !== 'fails' || !found.replay) throw new Error(first.text);
    const { failure, trace, replay } = found;
    const { seed, path } = replay;
    const again = await evaluate(kvmUserfault, use, { seed, path, runs: 1, only });
    expect(again.results).toMatchObject([{ outcome: 'fails', failure, trace }]);
  });
});

test('who stopped an access is asked when its vCPU is back, whatever it declares', async () => {
  let asked = 0;
  const liar = defineUapi({
    name: 'liar',
    source: { title: 'T', author: 'A', date: '2026', reference: 'R', status: 'S' },
    verbs: ['copy', 'zeropage', 'wake'],
    defaults: {},
    kernelSide() {
      const waits: ModelMechanism = {
        ...blocking(),
        stop: (access, kind) => access.exit(kind),
        reenter(access, kernel) {
          asked++;
          kernel.deliver(access, access.kind!);
        },
      };
      return { sites: before(VCPU_SITES, waits), discardedByPager() {} };
    },
  });
  const { results } = await evaluate(liar, {}, { only: ['coverage-is-true'], runs: 20, seed: 1 });
  expect(asked).toBeGreaterThan(0);
  expect(results[0]).toMatchObject({
    failure: { kind: 'wrong-effect', site: 'vcpu-load', declared: 'blocks', seen: 'exits' },
  });
});
