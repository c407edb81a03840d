import { type AccessSite, type Coverage, type Effect, SITE_NAMES } from '../api/index.js';
import { type HostFacts } from './host-facts.js';
import { paragraph } from './paragraph.js';
import { bytes } from './quantity.js';
import { textTable } from './text-table.js';

/** What became of looking at one backend. */
export interface BackendFinding {
  readonly name: string;
  readonly about: string;
  readonly live: boolean;
  readonly requirements: readonly {
    readonly what: string;
    readonly met: boolean;
    readonly found: string;
    readonly remedy: string;
  }[];
  /** Undefined where requirements are not met. */
  readonly coverage: Coverage | undefined;
  /** Sites that were seen to be otherwise than the backend declares them. */
  readonly otherwise: readonly {
    readonly site: AccessSite;
    readonly declared: Effect;
    readonly seen: Effect;
  }[];
  /** Why measuring broke off, if it did. */
  readonly failure: string | undefined;
}

/** The host in few lines, and which backends live on it. */
export function briefLines(
  facts: HostFacts,
  findings: readonly Pick<BackendFinding, 'name' | 'live'>[],
): string[] {
  const page = facts.page_bytes === undefined ? 'page size unknown' : `page size ${facts.page_bytes} bytes`;
  const named = (live: boolean): string => {
    const names = findings.filter((finding) => finding.live === live).map(({ name }) => name);
    return names.length === 0 ? 'none' : names.join(', ');
  };
  return [
    `${facts.kernel}, ${facts.architecture}, ${page}, /dev/kvm ${facts.devices['/dev/kvm']}`,
    `backends live: ${named(true)}; not here: ${named(false)}`,
  ];
}

/** Everything. */
export function doctorLines(
  facts: HostFacts,
  findings: readonly BackendFinding[],
  columns: number,
): string[] {
  return [
    ...hostLines(facts, columns),
    '',
    ...backendLines(findings, columns),
    '',
    ...coverageLines(findings, columns),
  ];
}

const NAME = 18;
const fact = (name: string, value: string, columns: number): string[] =>
  paragraph(name.padEnd(NAME) + value, columns, NAME);

const yesNo = (is: boolean): string => (is ? 'yes' : 'no');

function hostLines(facts: HostFacts, columns: number): string[] {
  const { hugePages, userfaultfd, guestMemfd } = facts;
  const huge = hugePages
    ? `, huge ${bytes(hugePages.page_bytes)} (${hugePages.free} of ${hugePages.total} free)`
    : ', no huge pages';
  const features =
    'error' in userfaultfd ? userfaultfd.error : `${userfaultfd.mask}: ${userfaultfd.features.join(' ')}`;
  const file =
    'error' in guestMemfd
      ? guestMemfd.error
      : `${guestMemfd.flags.join(' ') || 'cannot be mapped'}; write(2): ${yesNo(guestMemfd.write)}, userfaultfd: ${yesNo(guestMemfd.userfaultfd)}`;
  const sysctls = Object.entries(facts.sysctls).map(([name, value]) => `${name}=${value ?? '?'}`);
  const lines: [string, string][] = [
    ['kernel', `${facts.kernel}, ${facts.architecture}`],
    ['pages', `${facts.page_bytes === undefined ? 'of unknown size' : bytes(facts.page_bytes)}${huge}`],
    ['machine', `${facts.cpus} CPUs, ${bytes(facts.memory_bytes)}, node ${facts.node}`],
    ...Object.entries(facts.devices),
    ['CAP_SYS_PTRACE', facts.mayPtrace === undefined ? '?' : yesNo(facts.mayPtrace)],
    ['sysctls', sysctls.join(' ')],
    ['userfaultfd', features],
    ['guest_memfd', file],
  ];
  return lines.flatMap(([name, value]) => fact(name, value, columns));
}

function backendLines(findings: readonly BackendFinding[], columns: number): string[] {
  const lines: string[] = ['backends'];
  for (const { name, about, live, requirements, otherwise, failure } of findings) {
    lines.push(`  ${name.padEnd(13)}${live ? 'live' : 'not here'}  ${about}`);
    for (const { what, met, found, remedy } of requirements) {
      if (!met) lines.push(...paragraph(`    ${what}: ${found}. ${remedy}`, columns, 6));
    }
    for (const { site, declared, seen } of otherwise)
      lines.push(
        ...paragraph(`    ${site}: declared to be '${declared}', and seen to be '${seen}'`, columns, 6),
      );
    if (failure !== undefined) lines.push(...paragraph(`    measuring broke off: ${failure}`, columns, 6));
  }
  return lines;
}

/** Sites down, backends across; what was only declared stands in brackets. As many tables as the width asks for. */
function coverageLines(findings: readonly BackendFinding[], columns: number): string[] {
  const live = findings.filter(({ coverage }) => coverage !== undefined);
  if (live.length === 0) return ['no backend is live here'];
  const lines = ['what a missing page does: measured here, [declared only]'];
  for (let from = 0; from < live.length;) {
    let to = live.length;
    let table = matrix(live.slice(from, to));
    while (to > from + 1 && table.some((line) => line.length > columns))
      table = matrix(live.slice(from, --to));
    if (from > 0) lines.push('');
    lines.push(...table);
    from = to;
  }
  return lines;
}

function matrix(findings: readonly BackendFinding[]): string[] {
  const rows = SITE_NAMES.map((site) => [site, ...findings.map(({ coverage }) => cell(coverage!, site))]);
  return textTable(rows, { head: ['site', ...findings.map(({ name }) => name)], indent: 0 });
}

function cell(coverage: Coverage, site: AccessSite): string {
  const row = coverage.find((candidate) => candidate.site === site);
  // A visibility check reads nothing: there is no page to miss.
  if (!row || site === 'kernel-visibility') return '-';
  return row.evidence === 'measured' ? row.effect : `[${row.effect}]`;
}
