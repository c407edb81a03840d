import { type Command } from 'commander';
import { driveSync, hex, type ProgramMemory } from '../api/index.js';
import { type DumpedEntry, dumpImage, type ItsDump } from '../arm64/index.js';
import { address } from './arguments.js';
import { type CommandContext } from './context.js';
import { EXIT, UsageError } from './failure.js';
import { ImageFile } from './image-file.js';
import { dumpRegisters, programmedVgic, type SavedVm, savedVm } from './saved-vm.js';
import { textTable } from './text-table.js';
import { isVectorName, readVector } from './vector-file.js';

interface DumpCommandOptions {
  readonly vector?: string;
  readonly base?: bigint;
  readonly json?: boolean;
}

/** `its dump`: what the tables in a saved image say. */
export function itsDumpCommand(its: Command, context: CommandContext): void {
  its
    .command('dump')
    .description('decode the ITS tables of a saved image into readable tables')
    .argument('<image or vector>', 'a raw image, or a vector: file.jsonl#A-000')
    .option('--vector <file#id>', 'for an image: the vector whose registers say where the tables are')
    .option(
      '--base <gpa>',
      "for an image: the address of its first byte (default: the vector's first memslot)",
      address,
    )
    .option('--json', 'one JSON document on standard output')
    .action((subject: string, options: DumpCommandOptions) => {
      const { terminal } = context;
      const vm = vmOf(subject, options);
      const dump = isVectorName(subject)
        ? decode(vm, vm.memory)
        : decodeImage(vm, subject, options.base ?? vm.vector.vm.memslots[0]!.gpa);
      if (options.json) terminal.document(JSON.stringify(dump, bigintsAsHex));
      else for (const line of dumpLines(dump)) terminal.out(line);
      // What a restore would refuse is shown, and is no success.
      context.exit(dump.problems.length === 0 && dump.complete ? EXIT.ok : EXIT.failed);
    });
}

function vmOf(subject: string, { vector, base }: DumpCommandOptions): SavedVm {
  if (isVectorName(subject)) {
    if (vector !== undefined || base !== undefined)
      throw new UsageError('--vector and --base go with an image; this is a vector');
    return savedVm(readVector(subject));
  }
  if (vector === undefined) {
    throw new UsageError(
      'an image needs --vector <file#id>: registers, not memory, say where the tables are',
    );
  }
  return savedVm(readVector(vector));
}

function decodeImage(vm: SavedVm, path: string, base: bigint): ItsDump {
  using image = ImageFile.open(path, base, 4096);
  return decode(vm, image);
}

const decode = (vm: SavedVm, memory: ProgramMemory): ItsDump =>
  driveSync(dumpImage(dumpRegisters(programmedVgic(vm), vm.vector.vm.vcpu_ids)), memory);

const bigintsAsHex = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? hex(value) : value;

/** The tables as text. */
export function dumpLines({ collections, devices, problems, cutBy }: ItsDump): string[] {
  const lines = ['collections'];
  const targets = collections.map(({ id, target }) => [hex(id), target ?? 'not mapped']);
  lines.push(...textTable(targets, { head: ['ICID', 'vcpu_id'] }));
  for (const { id, eventBits, itt, entries } of devices) {
    lines.push('', `device ${hex(id)}: events 0 to ${2 ** eventBits - 1}, ITT at ${hex(itt)}`);
    if (entries.length === 0) lines.push('  no entry');
    else lines.push(...textTable(entries.map(entryRow), { head: ENTRY_HEAD, figures: [0, 1, 4] }));
  }
  if (problems.length > 0) lines.push('', 'a restore would refuse');
  for (const { at, what } of problems) lines.push(`  ${hex(at)}  ${what}`);
  if (cutBy !== undefined) lines.push('', `cut short by ${cutBy}: the tables name more than is walked`);
  const entries = devices.reduce((sum, device) => sum + device.entries.length, 0);
  lines.push('', `${collections.length} collections, ${devices.length} devices, ${entries} entries`);
  return lines;
}

const ENTRY_HEAD = ['event', 'LPI', 'ICID', 'enabled', 'priority', 'pending'];

const entryRow = (entry: DumpedEntry): string[] => [
  String(entry.event),
  String(entry.intid),
  hex(entry.collection),
  word(entry.enabled),
  entry.priority === undefined ? '?' : String(entry.priority),
  word(entry.pending),
];

const word = (value: boolean | undefined): string => (value === undefined ? '?' : value ? 'yes' : 'no');
