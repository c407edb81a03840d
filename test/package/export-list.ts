import ts from 'typescript';
import { join } from 'node:path';
import { ROOT, entries, subpath, type Entry } from '../../scripts/entries.mjs';

/** One exported name, with the declaration a user's compiler sees. */
export interface Exported {
  readonly name: string;
  /** Whether there is something at run time, or only a type. */
  readonly kind: 'value' | 'type';
  readonly symbol: ts.Symbol;
}

/** The built declarations of every library entry, read by the compiler as one program. */
export class Declarations {
  readonly #program: ts.Program;
  readonly checker: ts.TypeChecker;

  constructor() {
    this.#program = ts.createProgram(
      libraryEntries().map((entry) => declarationFile(entry)),
      {
        module: ts.ModuleKind.NodeNext,
        moduleResolution: ts.ModuleResolutionKind.NodeNext,
        target: ts.ScriptTarget.ES2023,
        strict: true,
        noEmit: true,
        types: ['node'],
      },
    );
    this.checker = this.#program.getTypeChecker();
  }

  exportsOf(entry: Entry): Exported[] {
    const file = this.#program.getSourceFile(declarationFile(entry));
    const module = file && this.checker.getSymbolAtLocation(file);
    if (!module) throw new Error(`${declarationFile(entry)} is no module`);
    return this.checker
      .getExportsOfModule(module)
      .map((symbol) => ({
        name: symbol.name,
        kind: kindOf(this.#target(symbol)),
        symbol: this.#target(symbol),
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #target(symbol: ts.Symbol): ts.Symbol {
    return symbol.flags & ts.SymbolFlags.Alias ? this.checker.getAliasedSymbol(symbol) : symbol;
  }
}

/** What a user can import by name: everything but workers, which are started, and the program. */
export function libraryEntries(): Entry[] {
  return entries().filter(({ kind }) => kind === 'library');
}

/** The specifier under which a user imports an entry. */
export function specifier(entry: Entry): string {
  return `demand-paging${subpath(entry).slice(1)}`;
}

function declarationFile(entry: Entry): string {
  return join(ROOT, 'dist', `${entry.name}.d.ts`);
}

function kindOf(symbol: ts.Symbol): 'value' | 'type' {
  return symbol.flags & ts.SymbolFlags.Value ? 'value' : 'type';
}
