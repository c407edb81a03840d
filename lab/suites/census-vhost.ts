import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { Poller } from 'demand-paging/linux';
import { takeCensus } from '../census/accesses.js';
import { GuestPages } from '../census/guest-pages.js';
import { rowOf, sumAccesses } from '../census/table.js';
import { Tracer } from '../census/tracer.js';
import { type Ring, VhostVsock } from '../census/vhost-vsock.js';
import { GuestRam } from '../its/guest-ram.js';
import { record } from './support/record.js';

/*
 * What of guest memory vhost reaches, a part of the kernel that knows nothing of KVM's memslots: with every
 * page missing, a packet of the guest's is taken out of its virtqueue.
 */
const PAGE = 4096;
const RAM = 0x8000_0000n;
const RAM_BYTES = 16 * PAGE;
const PACKET_BYTES = 44; // struct virtio_vsock_hdr
const WAIT_MS = 20_000;

/** Each part of a ring has a page to itself. */
const PART = { toGuest: 1, fromGuest: 4, packet: 8 } as const;
const pageOf = (page: number): bigint => RAM + BigInt(page * PAGE);

test("vhost's reads and writes of virtqueues and buffers wait in userfaultfd", async (context) => {
  if (!existsSync('/dev/vhost-vsock')) return context.skip('this kernel has no vhost_vsock');
  const tracer = Tracer.open('census');
  const ram = await GuestRam.open(RAM_BYTES);
  ram.reset([{ gpa: RAM, size: BigInt(RAM_BYTES) }]);
  // One descriptor, of a packet that says nothing, made available at index 0.
  ram.setWord(pageOf(PART.fromGuest), pageOf(PART.packet));
  ram.setWord(pageOf(PART.fromGuest) + 8n, BigInt(PACKET_BYTES));
  ram.setWord(pageOf(PART.fromGuest + 1), 1n << 16n);
  const [memory] = ram.slots;
  const ring = (page: number): Ring => ({
    descriptors: memory!.userspace + page * PAGE,
    available: memory!.userspace + (page + 1) * PAGE,
    used: memory!.userspace + (page + 2) * PAGE,
  });
  const vhost = new VhostVsock(memory!, { toGuest: ring(PART.toGuest), fromGuest: ring(PART.fromGuest) });
  const poller = new Poller([vhost.called]);
  const live = (): void => {
    vhost.start();
    vhost.kick();
    assert.equal(poller.wait(WAIT_MS), 1, 'vhost has not used the packet');
  };
  const { observed, trace } =
    typeof tracer === 'string'
      ? { observed: ram.observe(live), trace: undefined }
      : (({ result, trace: events }) => ({ observed: result, trace: events }))(
          tracer.during(() => ram.observe(live)),
        );
  vhost[Symbol.dispose]();
  poller.close();
  await ram.close();
  if (typeof tracer !== 'string') tracer[Symbol.dispose]();

  const touched = new Map(observed.effects.faults);
  record(
    'pages that vhost touches',
    observed.effects.faults.map(([page, kind]) => ({ page: Number(page - RAM) / PAGE, access: kind })),
  );
  for (const [page, kind] of [
    [PART.fromGuest, 'R'],
    [PART.fromGuest + 1, 'R'],
    [PART.fromGuest + 2, 'W'],
    [PART.packet, 'R'],
  ] as const)
    assert.equal(touched.get(pageOf(page)), kind, `page ${page}`);
  // used.idx: the packet came back.
  assert.ok(observed.effects.changed.some(([gpa]) => gpa === pageOf(PART.fromGuest + 2)));
  if (trace === undefined) return context.diagnostic(String(tracer));
  assert.equal(trace.lost, 0, 'the trace has lost entries');
  const { accesses } = takeCensus(trace.events, new GuestPages(ram.slots, PAGE));
  record('accesses', sumAccesses([accesses]).map(rowOf));
  assert.ok(
    accesses.some(({ context: by, waited }) => by === 'vhost' && waited > 0),
    'the trace does not show the thread of vhost',
  );
  assert.deepEqual(accesses.filter(({ slipped }) => slipped > 0).map(rowOf), []);
});
