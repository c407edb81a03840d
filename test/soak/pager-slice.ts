import {
  type AccessSite,
  type Attachment,
  type Backend,
  fileOffset,
  gpa,
  openPager,
  type Pager,
} from 'demand-paging';
import { type Accessor } from 'demand-paging/accessors';
import { canRead } from 'demand-paging/conformance';
import { memory } from 'demand-paging/sources';
import { MemoryFile, type HistorySubject, isPlain } from '../real/histories/subjects.js';
import { hashesOf, imageOf, PAGE, PAGES } from './image.js';
import { type SliceAccount, wrong } from './slice-account.js';

const START = 0x4000_0000;
const CHUNK = 128;
const ACCESSORS = 4;
const CLOSES = ['poison', 'zero', 'leave', 'populate'] as const;
/** Each has its share of the slice. */
const PAGERS = CLOSES.length;

/**
 * A subject's memory, read whole again and again from several sites while it is discarded; four pagers one
 * after the other, each closed in another way while accesses wait. What a walk sums up to is known: pages
 * become zeros, or the source's again, only while none walks there; those that stay the same are discarded at
 * any time.
 */
export async function soakPager(subject: HistorySubject, account: SliceAccount): Promise<void> {
  const image = imageOf(account.task.seed);
  const expected = { source: hashesOf(image), zeros: hashesOf(new SharedArrayBuffer(PAGES * PAGE)) };
  const turn = account.below(CLOSES.length);
  for (let at = 0; at < PAGERS; at++) {
    const life = await PagerLife.open(subject, account, image, expected);
    await life.run((at + 1) / PAGERS);
    await life.end(CLOSES[(turn + at) % CLOSES.length]!);
  }
}

interface Chunk {
  readonly first: number;
  /** Pages that were removed. */
  readonly removed: Set<number>;
  /** Walks and discards under way, which leave its contents as they are. */
  users: number;
  /** What its pages hold is being changed. */
  changing: boolean;
}

class PagerLife {
  readonly #chunks: readonly Chunk[] = Array.from({ length: PAGES / CHUNK }, (_, at) => ({
    first: at * CHUNK,
    removed: new Set<number>(),
    users: 0,
    changing: false,
  }));
  readonly #accessors: Promise<Accessor>[] = [];
  readonly #walkers: Accessor[] = [];

  private constructor(
    private readonly subject: HistorySubject,
    private readonly account: SliceAccount,
    private readonly image: SharedArrayBuffer,
    private readonly expected: { readonly source: Uint32Array; readonly zeros: Uint32Array },
    private readonly pager: Pager,
    private readonly attachment: Attachment,
    private readonly file: MemoryFile | undefined,
  ) {}

  static async open(
    subject: HistorySubject,
    account: SliceAccount,
    image: SharedArrayBuffer,
    expected: { readonly source: Uint32Array; readonly zeros: Uint32Array },
  ): Promise<PagerLife> {
    const file = subject.hasFile ? new MemoryFile(PAGES * PAGE) : undefined;
    let attachment: Attachment | undefined;
    const inner = subject.real.backend();
    const backend: Backend = {
      name: inner.name,
      probe: () => inner.probe(),
      attach: async (...given) => (attachment = await inner.attach(...given)),
    };
    const opening = openPager({
      backend,
      regions: [
        {
          gpa: gpa(START),
          length: BigInt(PAGES * PAGE),
          sourceOffset: fileOffset(0),
          memory: subject.memory,
          pageSize: PAGE,
          ...(file && { file: { fd: file.fd, offset: fileOffset(0) } }),
        },
      ],
      needs: [],
      source: memory(image),
      policy: { faultAroundPages: [1, 1, 4][account.below(3)]! },
    });
    const pager = await account.during('openPager', opening);
    const statistics = (): ReturnType<Pager['statistics']> => pager.statistics();
    account.statistics = statistics;
    account.faultsNow = () => statistics().missingFaults + statistics().minorFaults;
    const life = new PagerLife(subject, account, image, expected, pager, attachment!, file);
    account.pagesNow = () => life.#pagesNow();
    return life;
  }

  /** Until this share of the slice is over. */
  async run(share: number): Promise<void> {
    const { account } = this;
    const sites = this.#sites();
    const start = account.below(sites.length);
    const chosen = Array.from({ length: ACCESSORS }, (_, at) => sites[(start + at) % sites.length]!);
    await Promise.all(chosen.map((site) => this.#walk(site, share)));
  }

  /**
   * Closes while accesses wait at frozen pages; each must end, with the right bytes or an error. Populating
   * takes no frozen ones: there the accesses are under way.
   */
  async end(missing: (typeof CLOSES)[number]): Promise<void> {
    const { account, pager } = this;
    const chunk = this.#chunks[account.below(this.#chunks.length)]!;
    const frozen = missing !== 'populate';
    await this.#discard(chunk.first, CHUNK);
    if (frozen) {
      const freezing = pager.freeze([this.#range(chunk.first, CHUNK)]);
      await account.during(`freeze ${chunk.first}+${CHUNK}`, freezing);
    }
    const before = pager.statistics().heldFaults;
    const reads = (await this.#readersAtClose()).map((reader, at) =>
      this.#readAtClose(reader, chunk.first + at, missing),
    );
    if (frozen)
      await account.during(
        'accesses wait',
        until(() => pager.statistics().heldFaults > before),
      );
    await account.during(`close, ${missing}`, pager.close({ missing }));
    await Promise.all(reads);
    account.closed();
    for (const accessor of this.#accessors)
      await account.during(
        'an accessor stops',
        accessor.then((each) => each.stop()),
      );
    this.file?.[Symbol.dispose]();
  }

  /** Those that have walked, where an access that fails says so; or one that is started. */
  async #readersAtClose(): Promise<readonly Accessor[]> {
    const fits = (site: AccessSite): boolean => canRead(site) && this.subject.real.mayFail.includes(site);
    const walkers = this.#walkers.filter(({ site }) => fits(site));
    return walkers.length > 0 ? walkers : [await this.#start(this.#sites().find(fits)!)];
  }

  async #readAtClose(accessor: Accessor, page: number, how: string): Promise<void> {
    const what = `${accessor.site} reads page ${page} while the pager closes, ${how}`;
    const result = await this.account.during(what, accessor.access({ page, length: PAGE }));
    if (!result.ok) return;
    this.account.reads++;
    const bytes = Buffer.from(result.bytes);
    const zeros = how === 'zero' || how === 'leave';
    if (bytes.equals(new Uint8Array(this.image, page * PAGE, PAGE))) return;
    if (!zeros || bytes.some((byte) => byte !== 0)) throw wrong(`${what}: ${bytes.toString('hex', 0, 16)}`);
  }

  async #walk(site: AccessSite, share: number): Promise<void> {
    const { account } = this;
    let accessor = await this.#start(site);
    while (!account.isOver(share)) {
      const chunk = this.#chunks[account.below(this.#chunks.length)]!;
      if (chunk.changing) {
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      chunk.users++;
      const pages = [{ first: chunk.first, count: CHUNK }];
      const walk = accessor.walk({ pages, order: 'random', seed: account.below(2 ** 31) });
      if (site === 'external-vm-readv' && account.below(64) === 0) {
        walk.catch(() => {}); // it is killed
        await account.during('an accessor is killed', accessor.stop());
        account.kills++;
        accessor = await this.#start(site);
      } else {
        const report = await account.during(
          `${site} of thread ${accessor.thread} walks ${chunk.first}+${CHUNK}`,
          walk,
        );
        account.reads += report.pages;
        const sum = this.#sumOf(chunk);
        if (report.failures > 0 || report.pages !== CHUNK)
          throw wrong(`${site} in ${chunk.first}+${CHUNK}: failed: ${JSON.stringify(report)}`);
        if (report.checksum !== sum) throw wrong(await this.#whichIsWrong(accessor, chunk));
      }
      chunk.users--;
      await this.#takeAway(chunk);
      await this.#discardBeside();
    }
    this.#walkers.push(accessor);
  }

  /**
   * So that faults never run out. What changes the contents waits for no walk: it is left out while there is
   * one.
   */
  async #takeAway(chunk: Chunk): Promise<void> {
    const { account, pager } = this;
    const alone = chunk.users === 0 && !chunk.changing;
    if (alone && account.below(4) === 0) {
      chunk.changing = true;
      const first = chunk.first + account.below(CHUNK);
      const count = 1 + account.below(chunk.first + CHUNK - first);
      await account.during(
        `discard to zeros ${first}+${count}`,
        pager.discard([this.#range(first, count)], { then: 'zero' }),
      );
      for (let page = first; page < first + count; page++) chunk.removed.add(page);
      chunk.changing = false;
    } else if (alone) {
      chunk.changing = true;
      await this.#discard(chunk.first, CHUNK);
      chunk.removed.clear();
      chunk.changing = false;
    } else if (chunk.removed.size === 0 && !chunk.changing) {
      chunk.users++;
      await this.#discard(chunk.first, CHUNK);
      chunk.users--;
    }
  }

  /** Pages that have the source's bytes are discarded under the walks of others: they come again the same. */
  async #discardBeside(): Promise<void> {
    const { account } = this;
    const chunk = this.#chunks[account.below(this.#chunks.length)]!;
    const first = chunk.first + account.below(CHUNK);
    const count = 1 + account.below(Math.min(16, chunk.first + CHUNK - first));
    const pages = Array.from({ length: count }, (_, at) => first + at);
    if (chunk.changing || pages.some((page) => chunk.removed.has(page))) return;
    chunk.users++;
    await this.#discard(first, count);
    chunk.users--;
  }

  #discard(first: number, count: number): Promise<void> {
    return this.account.during(
      `discard ${first}+${count}`,
      this.pager.discard([this.#range(first, count)], { then: 'refetch' }),
    );
  }

  /** Where walks or discards are under way: pages for which an access may wait. */
  #pagesNow(): readonly string[] {
    const { states } = this.pager;
    return this.#chunks
      .filter(({ users, changing }) => users > 0 || changing)
      .map(({ first }) => {
        const pages = Array.from({ length: CHUNK }, (_, at) => first + at);
        const missing = pages.filter((page) => !states.isPresent(page) || states.is('frozen', page));
        const named = missing.map((page) => `${page}${states.is('frozen', page) ? ' (frozen)' : ''}`);
        return `pages of ${first}+${CHUNK} that are missing or frozen: ${named.join(' ') || 'none'}`;
      });
  }

  #sumOf(chunk: Chunk): number {
    let sum = 0;
    for (let page = chunk.first; page < chunk.first + CHUNK; page++)
      sum = (sum + this.#hashOf(chunk, page)) >>> 0;
    return sum;
  }

  #hashOf({ removed }: Chunk, page: number): number {
    return (removed.has(page) ? this.expected.zeros : this.expected.source)[page]!;
  }

  /**
   * A walk summed up wrongly: looks page by page for what it found, which may have been right again since.
   */
  async #whichIsWrong(accessor: Accessor, chunk: Chunk): Promise<string> {
    const found: string[] = [];
    for (let page = chunk.first; page < chunk.first + CHUNK; page++) {
      const what = `${accessor.site} reads page ${page} again`;
      const { checksum } = await this.account.during(
        what,
        accessor.walk({ pages: [{ first: page, count: 1 }], order: 'sequential', seed: 0 }),
      );
      const { states } = this.pager;
      if (checksum !== this.#hashOf(chunk, page))
        found.push(
          `${page} (${chunk.removed.has(page) ? 'zeros' : 'the source'} expected; the pager has it as ` +
            `${states.isPresent(page) ? 'present' : 'missing'}${states.is('removed', page) ? ', removed' : ''})`,
        );
    }
    return `${accessor.site} walked ${chunk.first}+${CHUNK} and found other bytes; looked at again: ${found.join(', ') || 'all right'}`;
  }

  #start(site: AccessSite): Promise<Accessor> {
    // Those of these subjects can walk, too.
    const starting = this.subject.real.accessor(site, this.attachment) as Promise<Accessor>;
    this.#accessors.push(starting);
    return this.account.during(`an accessor starts, ${site}`, starting);
  }

  /** Sites whose accesses wait for their page. */
  #sites(): readonly AccessSite[] {
    const { coverage } = this.attachment;
    const served = coverage.filter(({ effect }) => effect === 'blocks' || effect === 'exits');
    return this.subject.real.sites.filter((site) => isPlain(site) && served.some((row) => row.site === site));
  }

  #range(first: number, count: number): { readonly start: ReturnType<typeof gpa>; readonly length: bigint } {
    return { start: gpa(START + first * PAGE), length: BigInt(count * PAGE) };
  }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}
