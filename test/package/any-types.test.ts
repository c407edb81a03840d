import { join } from 'node:path';
import ts from 'typescript';
import { expect, test } from 'vitest';
import { ROOT } from '../../scripts/entries.mjs';
import { Declarations, libraryEntries, specifier } from './export-list.js';

/**
 * Every place in the exported declarations where the compiler of a NodeNext user sees `any`. A
 * dependency whose types do not resolve (typed-emitter by default import, for one) shows up here
 * and nowhere else: code that uses an `any` compiles.
 */
class AnyFinder {
  readonly found: string[] = [];
  readonly #seen = new Set<ts.Node>();

  constructor(private readonly checker: ts.TypeChecker) {}

  visit(path: string, symbol: ts.Symbol): void {
    for (const declaration of symbol.declarations ?? []) this.#walk(path, declaration);
  }

  #walk(path: string, node: ts.Node): void {
    if (this.#seen.has(node)) return;
    this.#seen.add(node);
    if (ts.isTypeNode(node) && this.checker.getTypeFromTypeNode(node).flags & ts.TypeFlags.Any) {
      this.found.push(`${path}: ${node.getText()}`);
    }
    const name = ts.isClassElement(node) || ts.isTypeElement(node) ? node.name?.getText() : undefined;
    node.forEachChild((child) => this.#walk(name ? `${path}.${name}` : path, child));
  }
}

test('no exported declaration holds `any`, written or by a type that does not resolve', () => {
  const declarations = new Declarations();
  const finder = new AnyFinder(declarations.checker);
  for (const entry of libraryEntries()) {
    for (const { name, symbol } of declarations.exportsOf(entry)) {
      finder.visit(`${specifier(entry)} ${name}`, symbol);
    }
  }
  expect(finder.found).toEqual([]);
});

/** What the search finds in a module of this package that is written here. */
function anysIn(text: string): string[] {
  const file = join(ROOT, 'test', 'package', 'probe.ts');
  const options: ts.CompilerOptions = {
    module: ts.ModuleKind.NodeNext,
    target: ts.ScriptTarget.ES2023,
    strict: true,
    types: ['node'],
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.fileExists = (name) => name === file || fileExists(name);
  host.readFile = (name) => (name === file ? text : readFile(name));
  host.getSourceFile = (name, ...rest) =>
    name === file
      ? ts.createSourceFile(
          name,
          text,
          { ...(rest[0] as ts.CreateSourceFileOptions), impliedNodeFormat: ts.ModuleKind.ESNext },
          true,
        )
      : getSourceFile(name, ...rest);
  const program = ts.createProgram([file], options, host);
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(program.getSourceFile(file) as ts.SourceFile) as ts.Symbol;
  const finder = new AnyFinder(checker);
  for (const symbol of checker.getExportsOfModule(module)) finder.visit(symbol.name, symbol);
  return finder.found;
}

test('the search finds an `any`, written or unresolved', () => {
  const found = anysIn(`import Missing from 'no-such-package';
    export interface Probe { written: any; unresolved: Missing<string>; fine: unknown }`);
  expect(found).toEqual(['Probe.written: any', 'Probe.unresolved: Missing<string>']);
});

test('the search tells the imports of typed-emitter apart that look alike', () => {
  const events = 'type Events = { fault(page: number): void }';
  const byDefault = anysIn(`import type Emitter from 'typed-emitter';
    ${events}; export interface Probe { events: Emitter<Events> }`);
  expect(byDefault).toEqual(['Probe.events: Emitter<Events>']);
  const byName = anysIn(`import type * as TE from 'typed-emitter';
    ${events}; export interface Probe { events: TE.default<Events> }`);
  expect(byName).toEqual([]);
});
