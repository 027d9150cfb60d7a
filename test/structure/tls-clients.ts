/**
 * Finds the places where a source file opens a TLS connection, and how each of them treats the certificate of
 * the server. Node verifies it by default unless the environment variable `NODE_TLS_REJECT_UNAUTHORIZED` is 0,
 * so a place that leaves `rejectUnauthorized` out can be switched off from outside of the program.
 * @module
 */
import ts from 'typescript';

export interface TlsClient {
  /** The call as written, with its line: `tls.connect (line 12)`. */
  readonly place: string;
  /** The value of `rejectUnauthorized`; undefined if there is a fault. */
  readonly verifies: boolean | undefined;
  /** Why the source does not show whether the certificate is verified. */
  readonly fault?: string;
}

export function tlsClientsOf(path: string, text: string): TlsClient[] {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  const clients: TlsClient[] = [];
  const { modules, functions } = importsOf(source);
  const add = (node: ts.Node, outcome: boolean | string): void => {
    const line = source.getLineAndCharacterOfPosition(node.getStart()).line + 1;
    const place = `${node.getText()} (line ${line})`;
    if (typeof outcome === 'boolean') clients.push({ place, verifies: outcome });
    else clients.push({ place, verifies: undefined, fault: outcome });
  };
  const judge = (callee: ts.Expression): void => {
    const { parent } = callee;
    const isCalled = ts.isCallExpression(parent) || ts.isNewExpression(parent);
    if (isCalled && parent.expression === callee) add(callee, verificationOf(parent));
    else add(callee, 'it is not called where it is named');
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isTypeNode(node)) return;
    if (ts.isStringLiteralLike(node) && clientNames(node.text) !== undefined) {
      add(node, 'the module is not loaded by an import declaration');
    }
    if (ts.isIdentifier(node) && !isNameOfMember(node)) {
      const names = modules.get(node.text);
      if (functions.has(node.text)) judge(node);
      else if (names !== undefined) judgeModule(node, names, add, judge);
      else if (GLOBALS.has(node.text) && !hasDispatcher(node)) {
        add(node, 'it verifies as the environment says');
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return clients;
}

/** A use of a whole module: only `module.name` can be judged. */
function judgeModule(
  node: ts.Identifier,
  names: ReadonlySet<string>,
  add: (node: ts.Node, outcome: string) => void,
  judge: (callee: ts.Expression) => void
): void {
  const { parent } = node;
  const isMember = ts.isPropertyAccessExpression(parent) && parent.expression === node;
  if (!isMember) add(node, 'the module is used as a value');
  else if (names.has(parent.name.text)) judge(parent);
}

/** What of these modules is there under which name. */
function importsOf(source: ts.SourceFile): {
  readonly modules: ReadonlyMap<string, ReadonlySet<string>>;
  readonly functions: ReadonlySet<string>;
} {
  const modules = new Map<string, ReadonlySet<string>>();
  const functions = new Set<string>();
  for (const statement of source.statements) {
    if (!ts.isImportDeclaration(statement) || !ts.isStringLiteral(statement.moduleSpecifier))
      continue;
    const names = clientNames(statement.moduleSpecifier.text);
    const clause = statement.importClause;
    if (names === undefined || clause === undefined || clause.isTypeOnly) continue;
    if (clause.name !== undefined) modules.set(clause.name.text, names);
    const bindings = clause.namedBindings;
    if (bindings === undefined) continue;
    if (ts.isNamespaceImport(bindings)) {
      modules.set(bindings.name.text, names);
      continue;
    }
    for (const { name, propertyName, isTypeOnly } of bindings.elements) {
      const imported = (propertyName ?? name).text;
      if (isTypeOnly) continue;
      if (imported === 'default') modules.set(name.text, names);
      else if (names.has(imported)) functions.add(name.text);
    }
  }
  return { modules, functions };
}

/** The value of `rejectUnauthorized` in the options, or why it is not known. */
function verificationOf(call: ts.CallExpression | ts.NewExpression): boolean | string {
  const options = call.arguments?.find(ts.isObjectLiteralExpression);
  let found: boolean | string = 'it leaves rejectUnauthorized to the default of Node';
  for (const property of options?.properties ?? []) {
    // What is spread may hold the option too.
    if (ts.isSpreadAssignment(property))
      found = 'rejectUnauthorized does not follow what is spread';
    if (property.name?.getText() !== 'rejectUnauthorized') continue;
    const value = ts.isPropertyAssignment(property) ? property.initializer.kind : undefined;
    if (value === ts.SyntaxKind.TrueKeyword) found = true;
    else if (value === ts.SyntaxKind.FalseKeyword) found = false;
    else found = 'rejectUnauthorized is neither true nor false in the source';
  }
  return found;
}

/** Whether it is called with a dispatcher of undici: then that one connects, and its `connect` is looked at. */
function hasDispatcher({ parent }: ts.Identifier): boolean {
  const options = ts.isCallExpression(parent) ? parent.arguments[1] : undefined;
  if (options === undefined || !ts.isObjectLiteralExpression(options)) return false;
  return options.properties.some((property) => property.name?.getText() === 'dispatcher');
}

/** `x` in `y.x`, in `{ x: 1 }` or in a class: not what was imported as `x`. */
function isNameOfMember(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.name === node;
  return (
    (ts.isPropertyAssignment(parent) || ts.isClassElement(parent) || ts.isTypeElement(parent)) &&
    parent.name === node
  );
}

/** What opens a TLS connection, by module; undefined for any other module. */
function clientNames(specifier: string): ReadonlySet<string> | undefined {
  return CLIENTS.get(specifier.replace(/^node:/, ''));
}

const CLIENTS: ReadonlyMap<string, ReadonlySet<string>> = new Map([
  ['tls', new Set(['connect', 'TLSSocket'])],
  ['https', new Set(['request', 'get', 'Agent', 'globalAgent'])],
  ['http2', new Set(['connect'])],
]);
/** They take no option of their own, and ask the environment. */
const GLOBALS: ReadonlySet<string> = new Set(['fetch', 'WebSocket', 'EventSource']);
