import { dirname } from 'node:path';
import ts from 'typescript';
import { expect, test } from 'vitest';
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

test('the search finds an `any`, written or unresolved', () => {
  const file = `${dirname(import.meta.filename)}/probe.ts`;
  const text = `import Missing from 'no-such-package';
    export interface Probe { written: any; unresolved: Missing<string>; fine: unknown }`;
  const host = ts.createCompilerHost({});
  const original = host.getSourceFile.bind(host);
  host.getSourceFile = (name, options) =>
    name === file ? ts.createSourceFile(name, text, options, true) : original(name, options);
  const program = ts.createProgram([file], { types: [] }, host);
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(program.getSourceFile(file) as ts.SourceFile) as ts.Symbol;
  const finder = new AnyFinder(checker);
  for (const symbol of checker.getExportsOfModule(module)) finder.visit(symbol.name, symbol);
  expect(finder.found).toEqual(['Probe.written: any', 'Probe.unresolved: Missing<string>']);
});
