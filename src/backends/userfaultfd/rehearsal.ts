import { fileOffset, type Gpa, gpa } from '../../api/address.js';
import { DemandPagingError } from '../../api/error.js';
import { FaultBatch } from '../../api/fault.js';
import { type MemoryKind, MemoryLayout } from '../../api/layout.js';
import { PageStates } from '../../api/page-states.js';
import { FLAG, OUTCOME, ResolutionBatch, VERB, type Verb, VERBS } from '../../api/resolution.js';
import { discardMemory, pageSize, systemError } from '../../linux/index.js';
import { type UserfaultfdAttachment } from './attachment.js';
import { openUserfaultfdPort, type UserfaultfdPort } from './fault-port.js';
import { type UserfaultfdChoice } from './options.js';
import { type UserfaultfdPortToken } from './port-token.js';

/** A page for each thing that is tried. */
const PAGE = { contents: 0, zeros: 1, poison: 2, count: 3 } as const;

/** What attaches to memory of this process. */
export type Attach = (
  layout: MemoryLayout,
  states: PageStates,
  choice: UserfaultfdChoice,
) => UserfaultfdAttachment;

/**
 * Does in small what a pager does: attaches to three pages, has contents come, zeros and poison, looks for
 * faults, accesses, drops pages, and closes. What a filter, a limit or a missing /proc refuses is refused
 * here, and no access waits for it yet. Nobody accesses the memory but this thread, and no page that is
 * missing.
 *
 * Blocks: for the kernel's locks. Errors: as `attach`; what was refused, by its system call. Nothing is left
 * behind.
 */
export function rehearse(attach: Attach, choice: UserfaultfdChoice, memory: MemoryKind): void {
  const size = pageSize();
  const layout = new MemoryLayout([
    {
      gpa: gpa(0),
      length: BigInt(PAGE.count * size),
      sourceOffset: fileOffset(0),
      memory,
      pageSize: size,
    },
  ]);
  // Without events: a change of the memory waits until another thread has read them.
  const attachment = attach(layout, PageStates.create(layout.pageCount), {
    ...choice,
    events: [],
    shards: 1,
  });
  try {
    const [shard] = attachment.shards;
    if (shard!.port.where !== 'worker') throw new TypeError('the port opens in a worker');
    const port = openUserfaultfdPort(shard!.port.token as UserfaultfdPortToken);
    try {
      shard!.kick();
      lookForFaults(port);
      // Only what has come is accessed: nothing would end the wait for it.
      if (resolve(port, attachment)) access(attachment, choice);
    } finally {
      port.close();
    }
    const { hva } = attachment.layout.regions[0]!;
    discardMemory({ address: Number(hva), length: PAGE.count * size, memory });
  } finally {
    attachment.release();
  }
}

function lookForFaults(port: UserfaultfdPort): void {
  const batch = new FaultBatch(1);
  port.take(batch, 'none', 0);
  port.take(batch, 'block', 0);
}

/**
 * Whether the page of contents is there. False: memory of this kind does not take the verb, as the pager
 * itself will say.
 */
function resolve(port: UserfaultfdPort, { supports }: UserfaultfdAttachment): boolean {
  const batch = new ResolutionBatch(VERBS.length + 2);
  const has = (verb: Verb): boolean => supports.verbs.includes(verb);
  const row = (verb: Verb, page: number, flags = 0): void => {
    if (has(verb)) batch.pushRow(VERB[verb], page, 1, 0, flags);
  };
  port.staging.fill(1, 0, pageSize());
  row(supports.install, PAGE.contents, supports.fill && supports.install === 'continue' ? FLAG.fill : 0);
  row('zeropage', PAGE.zeros);
  row('poison', PAGE.poison);
  for (const verb of ['writeprotect', 'rwprotect'] as const) {
    row(verb, PAGE.contents, FLAG.protect);
    row(verb, PAGE.contents);
  }
  row('wake', PAGE.contents);
  port.resolve(batch);
  for (let i = 0; i < batch.count; i++) {
    if (batch.outcome[i] === OUTCOME.installed) continue;
    const verb = VERBS[batch.verb[i]!];
    throw systemError(batch.syscall[i] ?? verb, batch.errno[i]!, `the kernel does not ${verb} a page`);
  }
  return has(supports.install);
}

/**
 * As the VMM does. Where it touches memory directly, a page must be there, and one that is poisoned ends the
 * process.
 */
function access(
  { memory, supports }: UserfaultfdAttachment,
  { userModeOnly, sigbus }: UserfaultfdChoice,
): void {
  const bytes = new Uint8Array(8);
  const at = (page: number): Gpa => gpa(page * pageSize());
  memory!.store(at(PAGE.contents), bytes);
  memory!.load(at(PAGE.contents), bytes);
  const isTouched = userModeOnly && !sigbus;
  if (isTouched || !supports.verbs.includes('poison')) return;
  try {
    memory!.load(at(PAGE.poison), bytes);
  } catch (error) {
    if (!(error instanceof DemandPagingError) || error.code !== 'PAGE_POISONED') throw error;
  }
}
