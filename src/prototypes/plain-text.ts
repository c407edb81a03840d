import { type Coverage, type Effect, SITE_NAMES } from '../api/index.js';
import { ioctlNumber } from './c-layout.js';
import { type UapiDefinition } from './definition.js';

/** Sites of a matrix; a visibility check reads nothing, so it has no column. */
const COLUMNS = SITE_NAMES.filter((site) => site !== 'kernel-visibility');

const NAME_WIDTH = 20;

/** The head of the matrix that {@link coverageRow} makes a row of. */
export const coverageHead = (): string =>
  ['uapi'.padEnd(NAME_WIDTH), ...COLUMNS.map((site) => site.padEnd(widthOf(site)))].join(' ').trimEnd();

/** What a missing page does at each access site, in one line. */
export function coverageRow(name: string, coverage: Coverage): string {
  const cells = COLUMNS.map((site) => {
    const effect: Effect = coverage.find((row) => row.site === site)?.effect ?? 'unmediated';
    return effect.padEnd(widthOf(site));
  });
  return [name.padEnd(NAME_WIDTH), ...cells].join(' ').trimEnd();
}

const widthOf = (site: string): number => Math.max(site.length, 'unmediated'.length);

/** The ioctls, one a line with its number, its structure and what it does, and its errors below. */
export function ioctlTable({
  ioctls = [],
  structs = [],
}: Pick<UapiDefinition<object>, 'ioctls' | 'structs'>): string {
  if (ioctls.length === 0) return 'no ioctls';
  const rows = ioctls.map((ioctl) => {
    const struct = structs.find(({ name }) => name === ioctl.struct);
    const number = `0x${ioctlNumber(ioctl, struct).toString(16).padStart(8, '0')}`;
    return [ioctl.name, ioctl.on, number, ioctl.struct ?? '-', ioctl.does];
  });
  const head = ['ioctl', 'on', 'number', 'struct', 'does'];
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((row) => row[at]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, at) => cell.padEnd(widths[at]!))
      .join('  ')
      .trimEnd();
  const lines = rows.flatMap((row, at) => [
    line(row),
    ...Object.entries(ioctls[at]!.errors ?? {}).map(([errno, when]) => `    ${errno}: ${when}`),
  ]);
  return [line(head), ...lines].join('\n');
}
