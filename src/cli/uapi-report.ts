import { type AccessSite, type Coverage } from '../api/index.js';
import { ioctlNumber, type Uapi, type UapiSource } from '../prototypes/index.js';
import { COLUMNS } from './evaluation/cell.js';
import { paragraph } from './paragraph.js';
import { type Terminal } from './terminal.js';
import { textTable, textTablesWithin } from './text-table.js';

/** What an RFC says of a prototype. Plain data. */
export interface UapiRfc {
  readonly name: string;
  readonly title: string;
  readonly source: UapiSource;
  readonly header: string;
  /** The ioctls with their numbers and errors, as text. */
  readonly ioctls: string;
  readonly verbs: readonly string[];
  readonly events: readonly string[];
  readonly coverage: Coverage;
  /** Head and row of the coverage matrix, as text. */
  readonly row: string;
  readonly unmediated: readonly AccessSite[];
}

type Definition = Uapi<object>['definition'];
type Screen = Pick<Terminal, 'columns' | 'isScreen'>;

/** All of it. Not on a screen, what is to be pasted (the header, the row of the matrix) is in lines of any length. */
export function uapiLines(rfc: UapiRfc, definition: Definition, screen: Screen): string[] {
  const { name, source, verbs, events, unmediated } = rfc;
  return [
    `${name}: ${source.title}`,
    `${source.author}, ${source.date}: ${source.reference} (${source.status})`,
    '',
    ...headerLines(rfc, screen),
    '',
    ...(screen.isScreen ? ioctlLines(definition) : rfc.ioctls.split('\n')),
    '',
    `verbs: ${verbs.join(', ')}`,
    `events: ${events.join(', ') || 'none'}`,
    '',
    ...(screen.isScreen ? coverageLines(rfc, screen.columns) : rfc.row.split('\n')),
    '',
    unmediated.length > 0 ? `unmediated: ${unmediated.join(', ')}` : 'every access site is mediated',
    '',
  ];
}

/** The header; on a screen, a line that is too long goes on in the next as C allows. */
export function headerLines({ header }: UapiRfc, { columns, isScreen }: Screen): string[] {
  const lines = header.trimEnd().split('\n');
  return isScreen ? lines.flatMap((line) => cLines(line, columns)) : lines;
}

/** Columns of a tab at the beginning of a line, on a terminal. */
const TAB = 8;

/** A line of C in several, all of it a comment, a directive, or a declaration with a comment behind it. */
function cLines(line: string, columns: number): string[] {
  if (line.startsWith('\t')) return paragraph(line.slice(1), columns - TAB, 3).map((part) => `\t${part}`);
  if (line.startsWith(' * ')) return paragraph(line.slice(3), columns - 3).map((part) => ` * ${part}`);
  if (!line.startsWith('#')) return paragraph(line, columns, 3);
  const parts = paragraph(line, columns - 2, TAB);
  return parts.map((part, at) => (at < parts.length - 1 ? `${part} \\` : part));
}

/** Each ioctl with its number and its structure; below it what it does, and its errors. */
function ioctlLines({ ioctls = [], structs = [] }: Definition): string[] {
  if (ioctls.length === 0) return ['no ioctls'];
  const rows = ioctls.map((ioctl) => {
    const number = ioctlNumber(
      ioctl,
      structs.find(({ name }) => name === ioctl.struct),
    );
    return [ioctl.name, ioctl.on, `0x${number.toString(16).padStart(8, '0')}`, ioctl.struct ?? '-'];
  });
  const [head, ...lines] = textTable(rows, { head: ['ioctl', 'on', 'number', 'struct'], indent: 0 });
  return [
    head!,
    ...ioctls.flatMap(({ does, errors = {} }, at) => [
      lines[at]!,
      `    ${does}`,
      ...Object.entries(errors).map(([errno, when]) => `    ${errno}: ${when}`),
    ]),
  ];
}

/** The row of the coverage matrix, in as many tables as it takes. */
function coverageLines({ name, coverage }: UapiRfc, columns: number): string[] {
  const effectOf = (site: AccessSite): string =>
    coverage.find((row) => row.site === site)?.effect ?? 'unmediated';
  const tables = textTablesWithin(columns, [[name, ...COLUMNS.map(effectOf)]], {
    head: ['uapi', ...COLUMNS],
    indent: 0,
  });
  return tables.flatMap((table, at) => (at === 0 ? table : ['', ...table]));
}
