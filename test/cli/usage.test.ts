import { describe, expect, test } from 'vitest';
import { cli } from './cli.js';

describe('the command line', () => {
  test('says its version and its help, and what it can do when asked for nothing', async () => {
    expect(await cli(['--version'])).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
    const help = await cli(['--help']);
    expect(help.status).toBe(0);
    for (const command of ['restore', 'doctor', 'its', 'conformance']) expect(help.stdout).toContain(command);
    const nothing = await cli([]);
    expect(nothing.status).toBe(2);
    expect(nothing.stderr).toContain('Usage: demand-paging');
  });

  test.each([
    [['nonsense'], /unknown command 'nonsense'/],
    [['its'], /Usage: demand-paging its/],
    [['its', 'replay'], /missing required argument/],
    [['restore', '--nonsense'], /unknown option '--nonsense'/],
    [['restore', '--accessors', 'many'], /whole number from 0 to 64/],
    [['restore', '--accessors', '65'], /whole number from 0 to 64/],
    [['restore', '--fault-around', '3'], /power of two/],
    [['restore', '--latency', '-1'], /argument missing|milliseconds/],
    [['restore', '--latency', 'soon'], /milliseconds/],
    [['restore', '--seed', '1.5'], /whole number/],
    [['restore', '--base', '0xzz'], /an address/],
    [['restore', '--base', '0x1000'], /--base goes with an image/],
    [['restore', '--backend', 'magic'], /Allowed choices are auto, userfaultfd, memory/],
    [['restore', '--memory', 'paper'], /Allowed choices are anonymous, shmem, hugetlb/],
    [['restore', '--policy', 'hope'], /Allowed choices are stop, poison, fail/],
    [['restore', 'one.img', 'two.img'], /too many arguments/],
    [['doctor', 'who'], /too many arguments/],
    [['its', 'plan', 'x.jsonl', '--in-flight', '0'], /whole number from 1/],
    [['its', 'dump', 'x.img'], /needs --vector/],
    [['its', 'dump', 'x.jsonl', '--base', '0'], /go with an image/],
    [
      ['conformance', '--backend', 'magic'],
      /MODULE_NOT_FOUND: there is no backend 'magic'[^]*one of: memory, userfaultfd/,
    ],
    [['conformance', '--only', 'world-peace'], /there is no property 'world-peace'/],
  ])('refuses %j with status 2', async (args, message) => {
    const { status, stdout, stderr } = await cli(args);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });
});
