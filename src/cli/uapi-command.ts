import { type Command } from 'commander';
import { DemandPagingError, unmediatedSites } from '../api/index.js';
import { coverageHead, coverageRow } from '../prototypes/index.js';
import { type CommandContext } from './context.js';
import { EXIT } from './failure.js';
import { type Target, TARGETS } from './evaluation/target.js';
import { loadTarget } from './evaluation/module-target.js';
import { openManifest } from '../conformance/index.js';
import { headerLines, uapiLines, type UapiRfc } from './uapi-report.js';

interface UapiCommandOptions {
  readonly header?: boolean;
  readonly json?: boolean;
}

const PRINTABLE = TARGETS.flatMap(({ name, uapi }) => (uapi ? [name] : [])).join(', ');

/** `uapi`: what an RFC says about a prototype. */
export function uapiCommand(program: Command, context: CommandContext): void {
  program
    .command('uapi')
    .description('print what an RFC needs of a prototype: C header, ioctls, its row of the coverage matrix')
    .argument('<name|path>', `a module, or one of: ${PRINTABLE}`)
    .option('--header', 'the C header alone, to be compiled')
    .option('--json', 'one JSON document on standard output')
    .action(async (name: string, options: UapiCommandOptions) => {
      const { rfc, definition } = await describe(await loadTarget(name));
      const { terminal } = context;
      if (options.json) terminal.document(JSON.stringify(rfc));
      else if (options.header) for (const line of headerLines(rfc, terminal)) terminal.out(line);
      else for (const line of uapiLines(rfc, definition, terminal)) terminal.out(line);
      context.exit(EXIT.ok);
    });
}

async function describe({ name, title, uapi, subject }: Target) {
  if (!uapi)
    throw new DemandPagingError('NOT_A_UAPI', `${name} is a backend, and no prototype of a UAPI`, {
      hint: `Those are: ${PRINTABLE}; or the path of a module that exports what defineUapi returns`,
    });
  const { source, header, ioctlTable, definition } = uapi.prototype;
  const { coverage, supports } = await openManifest(subject());
  const rfc: UapiRfc = {
    name,
    title,
    source,
    header: header(),
    ioctls: ioctlTable(),
    verbs: supports.verbs,
    events: supports.events,
    coverage,
    row: `${coverageHead()}\n${coverageRow(name, coverage)}`,
    unmediated: unmediatedSites(coverage),
  };
  return { rfc, definition };
}
