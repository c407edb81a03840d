import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { complaintsAbout } from '../support/sample-complaints.js';

const ROOT = join(import.meta.dirname, '..', '..');
/** Has a test of its own, which knows what its samples export. */
const ELSEWHERE = ['prototyping.md'];
const GUIDES = readdirSync(join(ROOT, 'docs')).filter(
  (name) => name.endsWith('.md') && !ELSEWHERE.includes(name),
);
const PAGES = [
  'README.md',
  'DESIGN.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'CHANGELOG.md',
  'bench/README.md',
].concat(
  readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
);
const FENCE = /^```(\w*)\n([\s\S]*?)^```$/gm;

interface Block {
  readonly language: string;
  readonly text: string;
}

interface Sample {
  readonly page: string;
  readonly name: string;
  readonly text: string;
  /** What it prints, where the page says so. */
  readonly output: string | undefined;
}

const textOf = (page: string): string => readFileSync(join(ROOT, page), 'utf8');
const blocksOf = (page: string): Block[] =>
  [...textOf(page).matchAll(FENCE)].map(([, language, text]) => ({ language: language!, text: text! }));

/** The TypeScript of the guides; a `text` block right behind one is what it prints. */
const samples = GUIDES.flatMap((guide): Sample[] => {
  const page = join('docs', guide);
  const blocks = blocksOf(page);
  return blocks.flatMap(({ language, text }, at) => {
    if (language !== 'ts') return [];
    const name = /^\/\/ (\S+)\.ts\n/.exec(text)?.[1] ?? `${guide} has a sample without a name`;
    const next = blocks[at + 1];
    return [{ page, name, text, output: next?.language === 'text' ? next.text : undefined }];
  });
});

/** In the package, so that its own name resolves. */
const folder = join(ROOT, `.docs-${process.pid}`);
beforeAll(() => {
  mkdirSync(folder);
  for (const { name, text } of samples) {
    writeFileSync(join(folder, `${name}.ts`), text);
    const { outputText } = ts.transpileModule(text, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
    });
    writeFileSync(join(folder, `${name}.js`), outputText);
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the samples of the guides', () => {
  test('are there', () => {
    expect(samples.map(({ page, name }) => `${page} ${name}`)).toEqual([
      'docs/concepts.md count-pages',
      'docs/gic-its-restore.md arm64-gic',
      'docs/troubleshooting.md missing-device',
      'docs/writing-a-backend.md counting',
      'docs/writing-a-backend.md check-counting',
      'docs/writing-a-backend.md check-forgetful',
    ]);
  });

  test('that are examples, which the lab runs, are as they are there', () => {
    const recipe = samples.find(({ name }) => name === 'arm64-gic');
    expect(recipe?.text).toBe(textOf('examples/arm64-gic.ts'));
  });

  test('compile', () =>
    expect(
      complaintsAbout(
        folder,
        samples.map(({ name }) => `${name}.ts`),
      ),
    ).toEqual([]));

  test.each(samples.filter(({ output }) => output !== undefined))(
    '$page: $name prints what the page says',
    ({ name, output }) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, `${name}.js`)], {
        encoding: 'utf8',
        timeout: 60_000,
        cwd: ROOT,
      });
      expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: output, stderr: '' });
    },
  );
});

describe('what the pages name', () => {
  const { scripts } = JSON.parse(textOf('package.json')) as { scripts: Record<string, string> };

  test.each(PAGES)('%s: npm scripts exist', (page) => {
    const named = [...textOf(page).matchAll(/npm run ([a-z:0-9-]+)/g)].map(([, name]) => name!);
    expect(named.filter((name) => !(name in scripts))).toEqual([]);
  });

  test.each(PAGES)('%s: links lead somewhere', (page) => {
    const links = [...textOf(page).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map(([, link]) => link!);
    const local = links.filter((link) => !/^[a-z]+:/.test(link));
    expect(local.filter((link) => !existsSync(join(ROOT, dirname(page), link)))).toEqual([]);
  });

  test.each(PAGES)('%s: files of the repository exist', (page) => {
    const named = [
      ...textOf(page).matchAll(/`((?:src|test|bench|lab|examples|fixtures|scripts)\/[\w./-]+)`/g),
    ];
    const missing = named.map(([, path]) => path!).filter((path) => !existsSync(join(ROOT, path)));
    expect(missing).toEqual([]);
  });

  test.each(PAGES)('%s: commands and their options exist', (page) => {
    const lines = blocksOf(page)
      .filter(({ language }) => language === 'sh' || language === 'console')
      .flatMap(({ text }) =>
        [...text.matchAll(/npx demand-paging ([^\n#]*)/g)].map(([, rest]) => rest!.trim()),
      );
    const unknown = lines.flatMap((line) => {
      const words = line.split(/\s+/);
      const command = words.slice(0, words[0] === 'its' ? 2 : 1);
      const { status, stdout } = spawnSync(
        process.execPath,
        [join(ROOT, 'dist/cli.js'), ...command, '--help'],
        { encoding: 'utf8' },
      );
      if (status !== 0) return [command.join(' ')];
      return words
        .filter((word) => word.startsWith('--') && !stdout.includes(word))
        .map((word) => `${command.join(' ')} ${word}`);
    });
    expect(unknown).toEqual([]);
  });

  test('the design has every folder', () => {
    const folders = readdirSync(join(ROOT, 'src'), { withFileTypes: true }).filter((entry) =>
      entry.isDirectory(),
    );
    const design = textOf('DESIGN.md');
    expect(folders.map(({ name }) => name).filter((name) => !design.includes(`| \`src/${name}`))).toEqual([]);
  });

  test('every page of docs is linked from the README', () => {
    const readme = textOf('README.md');
    const pages = PAGES.filter((page) => page.startsWith('docs/'));
    expect(pages.filter((page) => !readme.includes(`(${relative('.', page)})`))).toEqual([]);
  });
});
