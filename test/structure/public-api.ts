/**
 * What the entry points export, as the compiler sees it and as it is at run time.
 */
import { existsSync } from 'node:fs';
import { resolve, sep } from 'node:path';
import ts from 'typescript';
import manifest from '../../package.json' with { type: 'json' };

/** The entry points, `./dns` for one, without the program of a worker, which exports nothing. */
export const ENTRIES: readonly string[] = Object.keys(manifest.exports).filter(
  (path) => !/json|schemas/.test(path) && path !== './worker-main'
);

/** The source file of an entry point. */
function fileOf(entry: string): string {
  const paths = ['', '/index'].map((end) => `src/${entry.slice(2)}${end}.ts`.replace('//', '/'));
  const path = paths.find((each) => existsSync(each));
  if (path === undefined) throw new Error(`${entry} has no source file: tried ${paths.join(', ')}`);
  return resolve(path);
}

const { options } = ts.parseJsonConfigFileContent(
  ts.readConfigFile('tsconfig.json', ts.sys.readFile).config,
  ts.sys,
  '.'
);
const program = ts.createProgram(ENTRIES.map(fileOf), options);
export const checker: ts.TypeChecker = program.getTypeChecker();

function moduleOf(entry: string): ts.Symbol {
  return checker.getSymbolAtLocation(program.getSourceFile(fileOf(entry))!)!;
}

/** The symbol itself, where the given one is an import or an export of it. */
export function targetOf(symbol: ts.Symbol): ts.Symbol {
  const isAlias = (symbol.flags & ts.SymbolFlags.Alias) !== 0;
  return isAlias ? checker.getAliasedSymbol(symbol) : symbol;
}

/** Everything that entry points export, values and types, with the name that it has there. */
export const PUBLIC: ReadonlyMap<ts.Symbol, string> = new Map(
  ENTRIES.flatMap((entry) =>
    checker
      .getExportsOfModule(moduleOf(entry))
      .map((each): [ts.Symbol, string] => [targetOf(each), each.name])
  )
);

/** The names that the declarations of an entry point have as values, however a type is exported. */
export function declaredValues(entry: string): string[] {
  const names = checker.getTypeOfSymbol(moduleOf(entry)).getProperties();
  return names.map(({ name }) => name).sort();
}

/** What an entry point exports at run time. */
export async function load(entry: string): Promise<Readonly<Record<string, unknown>>> {
  return await import(entry.replace(/^\./, manifest.name));
}

/** The documentation of a symbol, as one line. */
export function docOf(symbol: ts.Symbol): string {
  return ts.displayPartsToString(symbol.getDocumentationComment(checker)).replace(/\s+/g, ' ');
}

export function isOptional(property: ts.Symbol): boolean {
  return (property.flags & ts.SymbolFlags.Optional) !== 0;
}

/** Whether it is declared in this project. */
export function isOurs(symbol: ts.Symbol): boolean {
  const source = resolve('src') + sep;
  return (symbol.declarations ?? []).some((each) =>
    resolve(each.getSourceFile().fileName).startsWith(source)
  );
}

/** Calls back for each part of a declaration that users of it see: no bodies, and nothing private. */
export function visitPublic(node: ts.Node, visit: (node: ts.Node) => void): void {
  if (ts.isBlock(node) || isPrivate(node)) return;
  visit(node);
  const hasInitializer =
    ts.isPropertyDeclaration(node) || ts.isVariableDeclaration(node) || ts.isParameter(node);
  if (hasInitializer) {
    if (node.type !== undefined) visitPublic(node.type, visit);
    return;
  }
  ts.forEachChild(node, (child) => visitPublic(child, visit));
}

/** Private members, and what is marked `@internal`: it is public for other files of the library only. */
function isPrivate(node: ts.Node): boolean {
  if (ts.getJSDocTags(node).some(({ tagName }) => tagName.text === 'internal')) return true;
  if (!ts.isClassElement(node)) return false;
  if (node.name !== undefined && ts.isPrivateIdentifier(node.name)) return true;
  return (ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Private) !== 0;
}
