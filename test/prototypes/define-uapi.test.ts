import { describe, expect, test } from 'vitest';
import { before, defineUapi, type UapiDefinition, VCPU_SITES } from 'demand-paging/prototypes';
import { exiting } from 'demand-paging/backends/memory';

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
    ['an ioctl whose structure nobody defines', { structs: [] }, /does not fit/],
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
