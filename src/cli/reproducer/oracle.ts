import { Contents, type Seen } from '../../conformance/index.js';
import { type Record, type RecordedEvent } from './record.js';

type RecordedTouch = Extract<RecordedEvent, { kind: 'touch' }>;

/** A read that got what it must not, or an access that never ended. */
export interface Wrong {
  readonly touch: RecordedTouch;
  /** What it has read; absent where it never ended. */
  readonly seen?: Seen;
}

/**
 * What is wrong in a record by itself, without knowing what was tested: a page that no thread removed reads as its
 * contents, and every access ends. Undefined where nothing is; then what failed is not to be seen at the kernel.
 */
export function wrongIn({ events, page_bytes }: Record): Wrong | undefined {
  const contents = new Contents(page_bytes);
  const touches = events.filter((event): event is RecordedTouch => event.kind === 'touch');
  for (const touch of touches) {
    const end = events.find((event) => event.kind === 'end' && event.id === touch.id);
    if (!end) return { touch };
    if (end.kind !== 'end' || !end.seen || isTouchedOtherwise(touch, events)) continue;
    const seen = contents.recognise(end.seen, touch.page, touch.offset);
    if (seen !== 'original') return { touch, seen };
  }
  return undefined;
}

/** Removed or written: then it may hold something else. */
const isTouchedOtherwise = ({ page }: RecordedTouch, events: readonly RecordedEvent[]): boolean =>
  events.some(
    (event) =>
      (event.kind === 'touch' && event.bytes !== undefined && event.page === page) ||
      ((event.kind === 'discard' || (event.kind === 'verb' && event.verb === 'poison')) &&
        page >= event.pages.first &&
        page < event.pages.first + event.pages.count),
  );
