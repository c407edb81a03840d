import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { describe, expect, test, type TestContext } from 'vitest';
import { type Backend, type FaultPort, openPort, type ResolutionBatch, VERB } from 'demand-paging';
import { NATIVE_SITES, type NativeSite, startAccessor } from 'demand-paging/accessors';
import { userfaultfd, type UserfaultfdBackendOptions } from 'demand-paging/backends/userfaultfd';
import { type RealSubject } from 'demand-paging/conformance';
import { pageSize, userfaultfdSupport } from 'demand-paging/linux';
import { Contents } from '../../../src/conformance/contents.js';
import { cReproducer } from '../../../src/cli/reproducer/c-program.js';
import { wrongIn } from '../../../src/cli/reproducer/oracle.js';
import { Record } from '../../../src/cli/reproducer/record.js';
import { recordFailure } from '../../../src/cli/reproducer/record-failure.js';
import { Workplace } from '../../cli/cli.js';

/** What a broken handler does to the rows that it was given, before they go to the kernel. */
type Breach = (batch: ResolutionBatch, port: FaultPort) => void;

/** userfaultfd with a handler in between that does one thing wrong. */
function brokenSubject(name: string, breach: Breach, options: UserfaultfdBackendOptions = {}): RealSubject {
  const around = (kernel: Backend): Backend => ({
    name,
    probe: () => kernel.probe(),
    async attach(layout) {
      const attachment = await kernel.attach(layout);
      const shard = attachment.shards[0]!;
      const inner = await openPort(shard.port);
      const port: FaultPort = {
        staging: inner.staging,
        take: (batch, wait, timeout_ms) => inner.take(batch, wait, timeout_ms),
        ready: () => inner.ready(),
        resolve(batch) {
          breach(batch, inner);
          inner.resolve(batch);
        },
        resident: (page) => inner.resident(page),
        close: () => inner.close(),
      };
      const shards = [
        { ...shard, port: { where: 'here', open: () => port } as const, kick: () => shard.kick() },
      ];
      return new Proxy(attachment, {
        get(target, member) {
          if (member === 'shards') return shards;
          const value: unknown = Reflect.get(target, member, target);
          return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
        },
      });
    },
  });
  return {
    name,
    deterministic: false,
    page_bytes: pageSize(),
    sites: NATIVE_SITES,
    memory: options.install === 'continue' ? 'shmem' : 'anonymous',
    backend: (recorded = (kernel) => kernel) => around(recorded(userfaultfd(options))),
    accessor: (site, { layout }) => startAccessor(site as NativeSite, layout),
    mayFail: ['vmm-syscall', 'kernel-copy', 'external-vm-readv'],
    killable: ['external-vm-readv'],
  };
}

/** Zeros are installed in place of what the source has. */
const installsZeros: Breach = (batch) => {
  for (let row = 0; row < batch.count; row++)
    if (batch.verb[row] === VERB.copy) batch.verb[row] = VERB.zeropage;
};

const BRINGS: readonly number[] = [VERB.copy, VERB.continue, VERB.move];

/** The second half of each page is lost on the way. */
const losesHalf: Breach = (batch, { staging }) => {
  const bytes = pageSize();
  for (let row = 0; row < batch.count; row++)
    for (let page = 0; BRINGS.includes(batch.verb[row]!) && page < batch.span[row]!; page++) {
      const at = batch.from[row]! + page * bytes;
      staging.fill(0, at + bytes / 2, at + bytes);
    }
};

function skipWithout(context: TestContext): void {
  if (spawnSync('gcc', ['--version']).status !== 0) context.skip('no gcc');
  try {
    userfaultfdSupport();
  } catch (error) {
    context.skip(String(error));
  }
}

/** Compiles without a warning, and runs. */
function compileAndRun(program: string): { readonly status: number | null; readonly output: string } {
  using workplace = new Workplace();
  const source = workplace.path('reproducer.c');
  const binary = workplace.path('reproducer');
  writeFileSync(source, program);
  const compiled = spawnSync('gcc', ['-Wall', '-Wextra', '-Werror', '-pthread', '-o', binary, source]);
  expect(String(compiled.stderr)).toBe('');
  const { status, stdout, stderr } = spawnSync(binary, { timeout: 20_000 });
  return { status, output: `${String(stdout)}${String(stderr)}` };
}

const HALF = [expect.objectContaining({ of: 'page' }), expect.objectContaining({ of: 'zeros' })];

describe('a failure on a real kernel', () => {
  test.for([
    ['zeros in place of the contents', installsZeros, 'no-zero-leak', 'zeros'],
    ['half a page', losesHalf, 'no-torn-page', HALF],
    ['half a page into a memory file', losesHalf, 'no-torn-page', HALF, { install: 'continue' }],
    ['half a page by moving it', losesHalf, 'no-torn-page', HALF, { install: 'move' }],
  ] as const)(
    'of a handler that installs %s is a C program that shows it',
    async ([name, breach, property, seen, options], context) => {
      skipWithout(context);
      const found = await recordFailure(property, 'kernel-copy', brokenSubject(name, breach, options), {
        runs: 10,
        seed: 7,
      });
      if ('why' in found) throw new Error(found.why);
      expect(found.wrong.seen).toEqual(seen);
      expect(found.program).toContain(`${property} at kernel-copy, on ${name}`);
      const { status, output } = compileAndRun(found.program);
      expect(output).toMatch(
        /FAILS: access \d+, to page \d, read 0x00000000 at \d+; the contents are 0x000[1-9]/,
      );
      expect(status).toBe(1);
    },
  );

  test('of a handler that does nothing wrong is none', async (context) => {
    skipWithout(context);
    const found = await recordFailure(
      'no-zero-leak',
      'kernel-copy',
      brokenSubject('sound', () => {}),
      {
        runs: 3,
        seed: 7,
      },
    );
    expect(found).toEqual({ why: 'repeated, it did not fail' });
  });
});

/** One access to page 1 of 2, and what the handler does about it. */
function recordOf(...handler: readonly Record['events'][number][]): Record {
  const record = new Record();
  record.page_bytes = pageSize();
  record.pageCount = 2;
  record.add({ kind: 'touch', id: 0, site: 'vmm-syscall', page: 1, offset: 0, length: 64 });
  record.add({ kind: 'fault', fault: 'missing', page: 1 });
  for (const event of handler) record.add(event);
  return record;
}

const copyOf = (wake: boolean): Record['events'][number] => ({
  kind: 'verb',
  verb: 'copy',
  pages: { first: 1, count: 1 },
  bytes: new Contents(pageSize()).page(1),
  wake,
  protect: false,
  outcome: 'installed',
  done: 1,
});

const text = {
  title: 'an access that is never woken',
  trace: ['     1  VMM thread (#1)  waits for page 1 */'],
};

test('an access that is never woken does not end in the C program either', (context) => {
  skipWithout(context);
  const record = recordOf(copyOf(false));
  const wrong = wrongIn(record)!;
  expect(wrong.seen).toBeUndefined();
  const { status, output } = compileAndRun(cReproducer(record, wrong, text)!);
  expect(output).toContain('FAILS: access 0, to page 1, does not end');
  expect(status).toBe(1);
});

test('what the kernel does right does not fail in the C program', (context) => {
  skipWithout(context);
  const record = recordOf(copyOf(true));
  const wrong = wrongIn(record)!; // its end is missing from the record
  record.add({ kind: 'end', id: 0, seen: new Contents(pageSize()).page(1).slice(0, 64) });
  expect(wrongIn(record)).toBeUndefined();
  const { status, output } = compileAndRun(cReproducer(record, wrong, text)!);
  expect(output).toContain('nothing goes wrong here');
  expect(status).toBe(0);
});

test('a record with what has no words in C is not made into a program', () => {
  const protectedFromAll = { ...copyOf(true), verb: 'rwprotect' } as Record['events'][number];
  const record = recordOf(protectedFromAll);
  expect(cReproducer(record, wrongIn(record)!, text)).toBeUndefined();
});
