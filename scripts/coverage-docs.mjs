// @ts-check `npm run coverage:docs`: measures what a missing page does on this host, by `doctor`, and writes
// docs/coverage.md.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from './entries.mjs';
import { ensureBuilt, ensureInstalled, program, requireNode, run } from './setup.mjs';

requireNode();
ensureInstalled();
ensureBuilt({ types: false });

/** More than any backend is tried at sites, each on a page of its own. */
const HUGE_PAGES = 16;

const { hasTwoStagePaging, reserveHugePages } = await import(
  pathToFileURL(join(ROOT, 'dist', 'linux.js')).href
);
const reserved = reserveHugePages(HUGE_PAGES);
const doctor = spawnSync(process.execPath, [join(ROOT, 'dist', 'cli.js'), 'doctor', '--json'], {
  encoding: 'utf8',
  maxBuffer: 1 << 24,
});
reserved[Symbol.dispose]();
if (doctor.status !== 0) {
  process.stderr.write(
    doctor.stderr || 'doctor found something that broke off; see `demand-paging doctor`\n',
  );
  process.exit(1);
}
/**
 * @type {{ host: { kernel: string, architecture: string }, backends: { name: string, about: string, live:
 * boolean, requirements: { what: string, met: boolean, found: string }[], coverage?: { site: string, effect:
 * string, evidence: string }[] }[] }}
 */
const { host, backends } = JSON.parse(doctor.stdout);
const live = backends.filter(({ coverage }) => coverage !== undefined);
const sites = live[0]?.coverage?.map(({ site }) => site) ?? [];

/** @param {string[][]} rows */
const table = ([head = [], ...rows]) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

/** @param {(typeof live)[number]} backend @param {string} site */
function cell({ coverage }, site) {
  const row = coverage?.find((candidate) => candidate.site === site);
  // A visibility check reads nothing: there is no page to miss.
  if (!row || site === 'kernel-visibility') return '–';
  return row.evidence === 'measured' ? `**${row.effect}**` : row.effect;
}

/** @param {(typeof live)[number][]} some */
const matrix = (some) =>
  table([
    ['site', ...some.map(({ name }) => name)],
    ...sites.map((site) => [`\`${site}\``, ...some.map((backend) => cell(backend, site))]),
  ]);

const WIDTH = 6;
const matrices = Array.from({ length: Math.ceil(live.length / WIDTH) }, (_, at) =>
  matrix(live.slice(at * WIDTH, (at + 1) * WIDTH)),
);
const absent = backends.filter(({ coverage }) => coverage === undefined);
const text = `# What a missing page does

Measured by \`demand-paging doctor\` and written by \`npm run coverage:docs\`: not edited by hand. On each host the
library finds out anew; this is how it came out on Linux ${host.kernel.replace(/^Linux /, '')}, ${host.architecture}, whose KVM ${
  hasTwoStagePaging() ? 'translates in two stages' : "shadows the guest's page tables"
}.

What is **bold** was tried, by real vCPUs, KVM itself, threads and processes, one page each; what is not follows from the
kernel's documentation only. \`blocks\`: the accessor waits, and a fault tells of it. \`exits\`: KVM_RUN returns with the
fault. \`errors\`: the access fails at once. \`injects\`: the guest sees an abort. \`unmediated\`: not intercepted. Where a
walk is KVM's own (shadowed page tables) it is what KVM's accesses are; where the processor makes it, it exits as a load
does. An atomic access through a hole is carried out as a read and a write, so that another vCPU may come between.

${table([['name', 'what it is'], ...live.map(({ name, about }) => [name, about])])}

${matrices.join('\n\n')}
${absent.length > 0 ? `\nNot to be had there: ${absent.map(({ name }) => name).join(', ')}.\n` : ''}`;
const file = join(ROOT, 'docs', 'coverage.md');
writeFileSync(file, text);
process.exit(run('format', process.execPath, [program('prettier'), '--write', file]));
