import { type Command } from 'commander';
import { type CatalogueEntry, CATALOGUE, type Measured } from './backend-catalogue.js';
import { type CommandContext } from './context.js';
import { type BackendFinding, briefLines, doctorLines } from './doctor-report.js';
import { EXIT } from './failure.js';
import { hostFacts } from './host-facts.js';

/** `doctor`: what this host can do, measured, and what it would take to do more. */
export function doctorCommand(program: Command, context: CommandContext): void {
  program
    .command('doctor')
    .description('look at this host: what it has, which backends live on it, what they cover (measured)')
    .option('--brief', 'the host and the live backends, without measuring')
    .option('--json', 'one JSON document on standard output')
    .action(async ({ brief = false, json = false }: { brief?: boolean; json?: boolean }) => {
      const { terminal } = context;
      const facts = hostFacts();
      const findings = await examineAll(!brief);
      if (json) terminal.document(JSON.stringify({ host: facts, backends: findings }));
      else {
        const lines = brief ? briefLines(facts, findings) : doctorLines(facts, findings, terminal.columns);
        for (const line of lines) terminal.out(line);
      }
      context.exit(findings.some(({ failure }) => failure !== undefined) ? EXIT.failed : EXIT.ok);
    });
}

/** What each backend of the catalogue is here, in its order. */
async function examineAll(deep: boolean): Promise<readonly BackendFinding[]> {
  const together = CATALOGUE.filter(({ alone }) => !alone).map((entry) => examine(entry, deep));
  const findings = new Map((await Promise.all(together)).map((finding) => [finding.name, finding]));
  for (const entry of CATALOGUE) if (entry.alone) findings.set(entry.name, await examine(entry, deep));
  return CATALOGUE.map(({ name }) => findings.get(name)!);
}

async function examine(
  { name, about, probe, measure }: CatalogueEntry,
  deep: boolean,
): Promise<BackendFinding> {
  const { met: live, list: requirements } = probe();
  const finding = { name, about, live, requirements, coverage: undefined, otherwise: [], failure: undefined };
  if (!live || !deep) return finding;
  try {
    const measured = await measure();
    return { ...finding, coverage: measured.coverage, otherwise: otherwiseOf(measured) };
  } catch (error) {
    return {
      ...finding,
      failure: error instanceof Error ? error.message : String(error),
    };
  }
}

/** Rows that were tried, and are not as they are declared. */
function otherwiseOf({ coverage, declared }: Measured): BackendFinding['otherwise'] {
  return coverage.flatMap(({ site, effect: seen }) => {
    const row = declared?.find((each) => each.site === site);
    return row && row.effect !== seen ? [{ site, declared: row.effect, seen }] : [];
  });
}
