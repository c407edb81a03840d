import { mapMemory, type Mapping, WINDOW_LIMIT } from '../../linux/index.js';

/** Staging is never smaller: room for a batch of neighbourhoods, and a huge page. */
const LEAST_BYTES = 0x20_0000;

/**
 * A port's own memory that pages are installed from: private, anonymous, page-aligned, of base pages,
 * and not inherited by children: a page that a fork shares cannot be moved (EBUSY).
 */
export function mapStaging(wanted: number, largestPage: number): Mapping {
  const unit = Math.max(LEAST_BYTES, largestPage);
  const length = Math.min(Math.ceil(wanted / unit) * unit, Math.max(WINDOW_LIMIT, largestPage));
  const staging = mapMemory({ kind: 'anonymous', length });
  try {
    staging.advise('NOHUGEPAGE');
  } catch {
    // a kernel without transparent huge pages has none to avoid
  }
  return staging;
}
