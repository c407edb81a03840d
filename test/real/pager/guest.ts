import { gpa, type GpaRange, hva, openPager, type Pager, type PagerOptions } from '../../../src/api/index.js';
import { userfaultfd, type UserfaultfdBackendOptions } from '../../../src/backends/userfaultfd/index.js';
import { PAGE, region } from '../userfaultfd/scene.js';

export const PAGES = 64;

export interface GuestOptions {
  readonly pages?: number;
  /** The export of fixtures/source.mjs. */
  readonly source?: string;
  /** What it is given besides its length. */
  readonly given?: object;
  readonly policy?: PagerOptions['policy'];
  readonly backend?: UserfaultfdBackendOptions;
  /** Memory of the test's own instead. */
  readonly hva?: number;
  readonly signal?: AbortSignal;
}

/** A pager over anonymous memory, whose source is a module of the user's. */
export function openGuest(options: GuestOptions = {}): Promise<Pager> {
  const { pages = PAGES, source = 'open', given = {}, policy = {}, backend = {} } = options;
  return openPager({
    backend: userfaultfd(backend),
    regions: [region(pages, 'anonymous', options.hva === undefined ? {} : { hva: hva(options.hva) })],
    source: {
      module: new URL('./fixtures/source.mjs', import.meta.url).href,
      export: source,
      options: { length: pages * PAGE, ...given },
    },
    policy,
    ...(options.signal && { signal: options.signal }),
  });
}

export const pages = (first: number, count: number): GpaRange[] => [
  { start: gpa(first * PAGE), length: BigInt(count * PAGE) },
];

/** The byte that fills a page. */
export const contents = (page: number): number => (page % 250) + 1;

/** The first byte of every page, through the mapping; missing pages are brought. */
export const firstBytes = (pager: Pager, count = PAGES): number[] =>
  Array.from({ length: count }, (_, page) => pager.memory!.readBlocking(gpa(page * PAGE), 1)[0]!);

export const everyPage = Array.from({ length: PAGES }, (_, page) => contents(page));
