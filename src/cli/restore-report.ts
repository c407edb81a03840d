import { hex, type Statistics } from '../api/index.js';
import { paragraph } from './paragraph.js';
import { bytes, count, duration, percent, plural } from './quantity.js';
import {
  type AccessorResult,
  type ItsAccess,
  type ItsResult,
  type Leaks,
  type RestoreJob,
  type RestoreResult,
} from './restore-job.js';
import { textTable } from './text-table.js';

/** How pages came, by counter, in the order in which people ask. Together they are all pages. */
export const SHARES = [
  ['demandPages', 'on demand', 'an access waited for it'],
  ['aroundPages', 'fault-around', 'a neighbour was asked for'],
  ['prefetchPages', 'prefetch', 'in the background'],
  ['ensuredPages', 'asked for', 'by the restore of the GIC, or the check'],
  ['zeroPages', 'as zeros', 'it had been removed'],
  ['racedPages', 'raced', 'another thread installed it first'],
] as const satisfies readonly (readonly [keyof Statistics, string, string])[];

/** What is about to be restored. */
export function headLines(job: RestoreJob, origin: string): string[] {
  const pages = job.image.length / job.pageSize;
  const size = `${bytes(job.image.length)} at ${hex(job.image.base)}`;
  return [
    fact('image', origin),
    fact('memory', `${size}, ${plural(pages, 'page')} of ${bytes(job.pageSize)}, ${job.memory}`),
    fact('source', job.latency_ms === 0 ? 'the file' : `the file, ${duration(job.latency_ms)} away`),
  ];
}

/** Columns of a fact's name. */
const FACT = 9;

const fact = (name: string, value: string): string => name.padEnd(FACT) + value;

/** Who serves, and why nobody better does. */
export function backendLines({ name, fallback }: RestoreResult['backend'], columns: number): string[] {
  const lines = [fact('backend', name === 'memory' ? 'memory: a model in this process, no kernel' : name)];
  if (!fallback) return lines;
  const why = fact('', `not ${fallback.from}: ${fallback.why}`);
  return [...lines, ...paragraph(why, columns, FACT), ...paragraph(fact('', fallback.remedy), columns, FACT)];
}

/** The whole report. `everyAccess`: one line for each access of the GIC's restore. */
export function reportLines(result: RestoreResult, job: RestoreJob, everyAccess: boolean): string[] {
  return [
    ...accessorLines(result),
    '',
    ...(result.its ? [...itsLines(result.its, everyAccess), ''] : []),
    ...pageLines(result.statistics),
    '',
    ...faultLines(result.statistics),
    '',
    ...timeLines(result, job),
    ...verdictLines(result),
  ];
}

function accessorLines({ accessors, unavailable }: RestoreResult): string[] {
  const rows = accessors.map((each) => [
    each.site,
    each.order,
    count(each.pages),
    duration(each.firstAccess_ms),
    duration(each.slowest_ms),
    duration(each.elapsed_ms),
    sawOf(each),
  ]);
  const head = ['accessor', 'order', 'pages', 'first', 'slowest', 'all', 'saw'];
  const lines = textTable(rows, { head, figures: [2, 3, 4, 5], indent: 0 });
  for (const { site, why } of unavailable) lines.push(`${site} cannot be tried here: ${why}`);
  return lines;
}

function sawOf({ right, failures, firstFailure, interrupted }: AccessorResult): string {
  if (right) return 'the image';
  if (failures > 0) return `${plural(failures, 'failure')}, errno ${firstFailure?.errno} first`;
  return interrupted ? 'not everything' : 'WRONG bytes';
}

function itsLines(its: ItsResult, everyAccess: boolean): string[] {
  const missed = its.accesses.filter((access) => access.missed);
  const waited_ms = missed.reduce((sum, { wait_ms }) => sum + wait_ms, 0);
  const lines = [
    `GIC and ITS of ${its.id}: ${plural(its.accesses.length, 'access', 'accesses')}, ` +
      `${missed.length} to missing pages, waited ${duration(waited_ms)}`,
    ...(everyAccess ? eachAccess(its.accesses) : byStructure(its.accesses)),
  ];
  if (its.order) {
    const { agree, recorded } = its.order;
    lines.push(`  first touches in the order of the recorded kernel: ${agree} of ${recorded}`);
  }
  const state = `${plural(its.lpis, 'LPI')}, ${plural(its.entries, 'entry', 'entries')}`;
  lines.push(
    its.differences.length === 0
      ? `  restored: ${state}, as recorded`
      : `  restored: ${state}, NOT as recorded`,
  );
  for (const difference of its.differences) lines.push(`    ${difference}`);
  return lines;
}

function byStructure(accesses: readonly ItsAccess[]): string[] {
  const rows = new Map<string, { pages: Set<bigint>; writes: number; missing: number; wait_ms: number }>();
  for (const { structure, page, kind, missed, wait_ms } of accesses) {
    const row = rows.get(structure) ?? { pages: new Set(), writes: 0, missing: 0, wait_ms: 0 };
    row.pages.add(page);
    row.writes += kind === 'W' ? 1 : 0;
    row.missing += missed ? 1 : 0;
    row.wait_ms += wait_ms;
    rows.set(structure, row);
  }
  const cells = [...rows].map(([structure, { pages, writes, missing, wait_ms }]) => [
    structure,
    pages.size,
    missing,
    duration(wait_ms),
    writes,
  ]);
  return textTable(cells, {
    head: ['structure', 'pages', 'missing', 'waited', 'writes'],
    figures: [1, 2, 3, 4],
  });
}

function eachAccess(accesses: readonly ItsAccess[]): string[] {
  const rows = accesses.map(({ step, page, structure, kind, missed, wait_ms }) => [
    hex(page),
    structure,
    kind,
    missed ? 'missing' : 'present',
    missed ? duration(wait_ms) : '',
    step,
  ]);
  return textTable(rows, { head: ['page', 'structure', 'kind', 'was', 'waited', 'during'], figures: [4] });
}

function pageLines(statistics: Statistics): string[] {
  const rows = SHARES.filter(([counter], index) => index < 4 || statistics[counter] > 0).map(
    ([counter, name, why]) => [
      name,
      count(statistics[counter]),
      percent(statistics[counter], statistics.pages),
      why,
    ],
  );
  return textTable(rows, { head: ['pages came', '', '', 'because'], figures: [1, 2], indent: 0 });
}

function faultLines(statistics: Statistics): string[] {
  const { latency } = statistics;
  const kinds = {
    missing: statistics.missingFaults,
    minor: statistics.minorFaults,
    'write-protect': statistics.writeProtectFaults,
    rwp: statistics.rwpFaults,
  };
  const classes = {
    vcpu: statistics.vcpuFaults,
    kernel: statistics.kernelFaults,
    vmm: statistics.vmmFaults,
    external: statistics.externalFaults,
    unattributed: statistics.unattributedFaults,
  };
  const rows = [
    ['kind', nonZero(kinds)],
    ['class', nonZero(classes)],
    [
      'of those',
      nonZero({
        writes: statistics.writeFaults,
        'joined a fetch': statistics.joinedFaults,
        'came too late': statistics.spuriousFaults,
      }),
    ],
  ];
  if (latency.count > 0) {
    const us = (ns: number): string => duration(ns / 1e6);
    rows.push([
      'resolved in',
      `p50 ${us(latency.p50_ns)}, p90 ${us(latency.p90_ns)}, p99 ${us(latency.p99_ns)}, at most ${us(latency.max_ns)}`,
    ]);
  }
  return ['faults', ...textTable(rows)];
}

/** `12 vmm, 3 kernel`, without what did not happen. */
function nonZero(figures: Readonly<Record<string, number>>): string {
  const parts = Object.entries(figures).filter(([, value]) => value > 0);
  return parts.length === 0 ? 'none' : parts.map(([name, value]) => `${count(value)} ${name}`).join(', ');
}

function timeLines({ firstAccess_ms, complete_ms }: RestoreResult, job: RestoreJob): string[] {
  const rate = job.image.length / (complete_ms / 1000);
  const first = firstAccess_ms === undefined ? '' : `first access after ${duration(firstAccess_ms)}, `;
  return [`${first}complete after ${duration(complete_ms)}, ${bytes(rate)}/s`];
}

function verdictLines({ verify, leaks }: RestoreResult): string[] {
  const lines: string[] = [];
  const { changed_bytes } = verify;
  const changed = changed_bytes === 0 ? '' : ` (${changed_bytes} changed, as by the recorded kernel)`;
  if (verify.wrong_bytes === 0) lines.push(`checked ${count(verify.bytes)} bytes: all right${changed}`);
  else {
    lines.push(
      `checked ${count(verify.bytes)} bytes: ${count(verify.wrong_bytes)} WRONG, the first at ${hex(verify.firstWrong ?? 0n)}`,
    );
    if (verify.unreadablePages > 0)
      lines.push(`  ${plural(verify.unreadablePages, 'page')} could not be read`);
  }
  lines.push(leakLine(leaks));
  return lines;
}

function leakLine(leaks: Leaks | undefined): string {
  if (!leaks) return 'closed; this host does not tell what is left';
  const { descriptorsOf, ...counts } = leaks;
  const left = nonZero(counts);
  if (left === 'none') return 'closed: no descriptor, thread, mapping or process is left';
  return `closed, but LEFT: ${[left, ...descriptorsOf].join(', ')}`;
}
