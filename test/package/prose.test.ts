import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ROOT } from '../../scripts/entries.mjs';

/** Where each rule holds. A folder that is not listed is reported as skipped, with what is left in it. */
const HELD = {
  words: [
    'assets',
    'examples',
    'src',
    'src/accessors',
    'src/api',
    'src/kvm',
    'test/bench',
    'test/package',
    'test/scenarios',
    'test/sources',
  ],
  width: [
    'docs',
    'examples',
    'src',
    'src/accessors',
    'src/api',
    'src/sources',
    'test/bench',
    'test/kvm',
    'test/lab',
    'test/prototypes',
    'test/scenarios',
    'test/sources',
    'test/support',
    'the root',
  ],
};

const MOST_COLUMNS = 110;

/** A sentence names the accessor, vCPU, resolver, control thread or waiter that acts: see the glossary in docs/concepts.md. */
const PRONOUNS =
  /\b(who(m|ever|mever)?|(some|no|any|every)body('s)?|(some|any|every)one|no one|he|him|himself)\b/i;

/** Words that this project used and the field does not, each with the field's word. */
const PRIVATE: ReadonlyArray<readonly [pattern: RegExp, word: string]> = [
  [/\blast rites\b|\bdoomed\b|OfTheDead\b/i, 'crash cleanup'],
  [/\bwithdr[ae]w\w*/i, "discard, with then: 'refetch'"],
  [/\bledgers?\b/i, 'page accounting'],
  [/\bunder way\b|\bunderWay\b/, 'in flight, in progress'],
  [/\bNotices?\b|\bnotices\b/, 'event'],
  [/\b(to be|be|is|are) had\b/i, 'available, unavailable'],
  [/\bcanary\b|\bbait\b/i, 'slot verification'],
  [/\blast (of the )?letters?\b|\bletters?\b|\bletter box\b/i, 'fault slot'],
  [/\bseats?\b|\bsitting\b/i, 'vCPU registration'],
  [/\bsinful\b|\bsins?\b(?!\()/i, 'mutant'],
  [/\bout loud\b|\bend of the world\b/i, 'reported'],
  [/\bpayOwed\b|\bowed\b/i, 'pending replies'],
  [/\b\w+(Ms|Ns)\b(?<!\b(v?CPUs|VMs|VMMs|GFNs|KVM_RUNs|mtimeMs))/, 'units last: _ms, _ns'],
];

const listed = execFileSync('git', ['-c', 'safe.directory=*', 'ls-files', '-z'], {
  cwd: ROOT,
  encoding: 'utf8',
})
  .split('\0')
  .filter((file) => existsSync(join(ROOT, file)) && statSync(join(ROOT, file)).isFile());

/** The folder that a file is held with: of `src` and `test` the one below, else the first; undefined for what is not ours. */
function folderOf(file: string): string | undefined {
  if (!/\.(ts|mjs|js|c|h|md)$/.test(file) || /\/results\/|^fixtures\/|__snapshots__/.test(file))
    return undefined;
  // These two hold the words in order to forbid them.
  if (/^test\/package\/(prose|wording)\.test\.ts$/.test(file)) return undefined;
  const [first, second, third] = file.split('/');
  if (second === undefined) return 'the root';
  return ['src', 'test'].includes(first!) && third !== undefined ? `${first}/${second}` : first;
}

const isComment = (line: string): boolean =>
  /^\s*(\/\/|\/\*|\*)/.test(line) || /[\s;,{})]\/\/ /.test(line.replace(/'[^']*'|"[^"]*"|`[^`]*`/g, "''"));

const RULES = {
  words: (file: string, line: string): string | undefined => {
    const pronoun = PRONOUNS.exec(line);
    if (pronoun) return `'${pronoun[0]}': name the thread or the thing`;
    const found = PRIVATE.map(([pattern, word]) => ({ at: pattern.exec(line), word })).find(({ at }) => at);
    return found && `'${found.at![0]}': say ${found.word}`;
  },
  width: (file: string, line: string): string | undefined =>
    !file.endsWith('.md') && line.length > MOST_COLUMNS && isComment(line)
      ? `a comment of ${line.length} columns`
      : undefined,
};

function faultsIn(rule: keyof typeof RULES, files: readonly string[]): string[] {
  return files.flatMap((file) =>
    readFileSync(join(ROOT, file), 'utf8')
      .split('\n')
      .flatMap((line, index) => {
        const fault = RULES[rule](file, line);
        return fault === undefined ? [] : [`${file}:${index + 1} ${fault}`];
      }),
  );
}

const byFolder = new Map<string | undefined, string[]>();
for (const file of listed) byFolder.set(folderOf(file), [...(byFolder.get(folderOf(file)) ?? []), file]);
byFolder.delete(undefined);
const folders = [...byFolder].sort(([a], [b]) => (a! < b! ? -1 : 1)) as [string, string[]][];

describe.each(['words', 'width'] as const)('%s', (rule) => {
  test.for(folders)('%s', ([folder, files], context) => {
    const faults = faultsIn(rule, files);
    if (HELD[rule].includes(folder)) return expect(faults).toEqual([]);
    context.skip(
      `${rule}: ${faults.length > 0 ? `${faults.length} left in ${folder}` : `${folder} is clean: list it in HELD`}`,
    );
  });

  test('each folder that is held exists', () => {
    expect(folders.map(([folder]) => folder)).toEqual(expect.arrayContaining(HELD[rule]));
  });
});

test('each rule finds its fault, and takes no other line for one', () => {
  const bad = [
    '// whoever waits',
    "'nobody is told'",
    '// He waits',
    '// fetches under way',
    'const timeoutMs = 1;',
    '// the page cannot be had',
  ];
  for (const line of bad) expect(RULES.words('x.ts', line), line).toBeDefined();
  for (const line of [
    '// the vCPUs, VMs and GFNs',
    'stat.mtimeMs',
    '// the header, when there',
    'Math.sin(x)',
  ])
    expect(RULES.words('x.ts', line), line).toBeUndefined();
  const long = 'x'.repeat(120);
  for (const line of [`// ${long}`, ` * ${long}`, `call(); // ${long}`])
    expect(RULES.width('x.ts', line)).toBeDefined();
  for (const line of [`call('${long} // no comment');`, `const a = '// ${long}';`, '// short'])
    expect(RULES.width('x.ts', line), line).toBeUndefined();
});
