/**
 * The conventions that all public classes and options share, as far as a program can check them.
 */
import ts from 'typescript';
import { describe, expect, test } from 'vitest';
import {
  checker,
  declaredValues,
  docOf,
  ENTRIES,
  isOptional,
  isOurs,
  load,
  PUBLIC,
  targetOf,
  visitPublic,
} from './public-api.ts';
import { saysDefault, statesLiteral } from './stated-default.ts';

const values = new Map<string, unknown>();
for (const entry of ENTRIES) {
  for (const [name, value] of Object.entries(await load(entry))) values.set(name, value);
}
const publicTypes = new Map([...PUBLIC].map(([symbol, name]) => [name, symbol]));

/** A class that an entry point exports, as a value or as a type. */
interface PublicClass {
  readonly name: string;
  readonly declaration: ts.ClassDeclaration;
  readonly instance: ts.Type;
  /** The names of its own static methods and of its methods, those that it inherits included. */
  readonly factories: readonly string[];
  readonly methods: ReadonlyMap<string, ts.Symbol>;
}

const classes = [...PUBLIC]
  .filter(([symbol]) => (symbol.flags & ts.SymbolFlags.Class) !== 0)
  .map(([symbol, name]): PublicClass => {
    const declaration = symbol.declarations!.find(ts.isClassDeclaration)!;
    const instance = checker.getDeclaredTypeOfSymbol(symbol);
    const factories = declaration.members
      .filter(ts.isMethodDeclaration)
      .filter(({ name }) => ts.isIdentifier(name))
      .filter((each) => (ts.getCombinedModifierFlags(each) & ts.ModifierFlags.Static) !== 0)
      .map((each) => each.name.getText());
    const methods = instance
      .getProperties()
      // The compiler numbers well-known symbols: `__@asyncDispose@123`.
      .map((each): [string, ts.Symbol] => [each.name.replace(/^(__@\w+)@\d+$/, '$1'), each]);
    return { name, declaration, instance, factories, methods: new Map(methods) };
  });
const namedClasses = classes.map((each) => [each.name, each] as const);

describe('entry points', () => {
  test.each(ENTRIES)('%s declares as values what there is at run time', async (entry) => {
    expect(declaredValues(entry)).toEqual(Object.keys(await load(entry)).sort());
  });

  test('whatever a public declaration names is public itself', () => {
    const hidden = new Set<string>();
    for (const [symbol, name] of PUBLIC) {
      for (const declaration of symbol.declarations ?? []) {
        visitPublic(declaration, (node) => {
          const named = namedBy(node);
          if (named === undefined || PUBLIC.has(named) || !isOurs(named)) return;
          if ((named.flags & ts.SymbolFlags.TypeParameter) !== 0) return;
          hidden.add(`${named.name}, named by ${name}`);
        });
      }
    }
    expect([...hidden].sort()).toEqual([]);
  });
});

/**
 * The type that a part of a declaration names, or undefined. Where a list of values gives a type, it names none; nor is
 * the base of a class a name that users need, for its methods are those of the class.
 */
function namedBy(node: ts.Node): ts.Symbol | undefined {
  const isOfClass = ts.isHeritageClause(node.parent) && ts.isClassDeclaration(node.parent.parent);
  if (isOfClass && node.parent.token === ts.SyntaxKind.ExtendsKeyword) return undefined;
  const name = ts.isTypeReferenceNode(node)
    ? node.typeName
    : ts.isExpressionWithTypeArguments(node)
      ? node.expression
      : undefined;
  const symbol = name && checker.getSymbolAtLocation(name);
  const named = symbol && targetOf(symbol);
  // What a class implements for other files of the library concerns no user.
  const isInternal = named?.getJsDocTags(checker).some((tag) => tag.name === 'internal');
  return isOfClass && isInternal ? undefined : named;
}

/**
 * Sockets have the API of Node: its names and units, several arguments for an event, and the event `error`, which the
 * process does not survive if nobody listens.
 */
const LIKE_NODE = /^(?:Presence|Connector|Ping)/;
const isOwnStyle = ([name]: readonly [string, unknown]): boolean => !LIKE_NODE.test(name);

describe('public classes', () => {
  /** The classes that `open` what they do not keep open. */
  const WITHOUT_END = ['FileSecrets', 'SiteCredentials', 'StoreSecrets'];
  /** Calls that begin something that goes on until somebody ends it. */
  const BEGINS =
    /\.(?:after|watch|on)\(|\b(?:setTimeout|setInterval|createServer|createSocket|spawn|fork)\(/;
  const STARTS = ['open', 'listen', 'dial', 'start'];

  test.each(namedClasses.filter(isOwnStyle))(
    '%s can be ended if it holds something',
    (name, each) => {
      const { declaration, factories, methods } = each;
      const holds =
        STARTS.some((verb) => factories.includes(verb) || isMethod(methods.get(verb))) ||
        BEGINS.test(declaration.members.map((member) => member.getText()).join('\n'));
      // `destroy` ends at once what does no I/O.
      const ends = ['stop', 'destroy'].some((verb) => isMethod(methods.get(verb)));
      const hasEnd = methods.has('close') || ends;
      if (holds) expect(hasEnd).toBe(!WITHOUT_END.includes(name));
      else expect(WITHOUT_END).not.toContain(name);
    }
  );

  const closable = namedClasses
    .filter(([, { methods }]) => methods.has('close'))
    .filter(isOwnStyle);
  test.each(closable)('%s is closed and disposed of by promises', (name, { methods }) => {
    expect([...methods.keys()]).toContain('__@asyncDispose');
    for (const end of ['close', '__@asyncDispose']) {
      const [signature, ...others] = callsOf(methods.get(end)!);
      expect(others).toEqual([]);
      expect(signature!.getParameters().filter((each) => !isOptionalParameter(each))).toEqual([]);
      expect(checker.typeToString(signature!.getReturnType())).toBe('Promise<void>');
    }
    const { prototype } = values.get(name) as { prototype: AsyncDisposable };
    const dispose = Function.prototype.toString.call(prototype[Symbol.asyncDispose]);
    expect(dispose).toMatch(/\{\s*return this\.close\(\);?\s*\}$/);
  });

  test.each(closable)(
    '%s returns the same promise when it is closed twice',
    (_, { declaration }) => {
      const close = declaration.members.find((each) => each.name?.getText() === 'close')!;
      // An `async` method returns another promise each time.
      const isAsync = (ts.getCombinedModifierFlags(close) & ts.ModifierFlags.Async) !== 0;
      expect(isAsync).toBe(false);
    }
  );

  test.each(namedClasses)('%s is made by the verbs of the others', (_, { factories }) => {
    const forbidden = ['create', 'load', 'acquire', 'udp', 'unix', 'connect', 'make', 'of'];
    expect(factories.filter((verb) => forbidden.includes(verb))).toEqual([]);
  });

  const emitters = namedClasses
    .filter(([, { instance }]) => instance.getProperty('emit'))
    .filter(isOwnStyle);
  test('some of them emit events', () => {
    expect(emitters.length).toBeGreaterThan(10);
  });

  test.each(emitters)('%s emits each event with one payload', (_, { declaration }) => {
    const base = declaration.heritageClauses?.flatMap(({ types }) => types)[0];
    const map = base?.typeArguments?.[0];
    expect(base?.expression.getText(), 'base class').toMatch(/^(?:Event)?Emitter$/);
    expect(map, 'map of events').toBeDefined();
    const events = checker.getTypeFromTypeNode(map!).getProperties();
    expect(events.length).toBeGreaterThan(0);
    const odd = events.filter((event) => {
      const type = checker.getTypeOfSymbol(event);
      return (
        !checker.isTupleType(type) || checker.getTypeArguments(type as ts.TypeReference).length > 1
      );
    });
    expect(odd.map(({ name }) => name)).toEqual([]);
    // An `error` that nobody listens for is lost without a word: it is called `problem`.
    expect(events.map(({ name }) => name)).not.toContain('error');
    for (const event of events) expectPayload(event);
  });
});

/** What the payload of an event has in any case, by the name of the event. */
const PAYLOADS: Readonly<Record<string, readonly string[]>> = {
  problem: ['error'],
  state: ['state', 'previous'],
};

function expectPayload(event: ts.Symbol): void {
  const [payload] = checker.getTypeArguments(checker.getTypeOfSymbol(event) as ts.TypeReference);
  for (const key of PAYLOADS[event.name] ?? []) {
    expect(payload?.getProperty(key), `${event.name}: ${key}`).toBeDefined();
  }
}

function callsOf(symbol: ts.Symbol): readonly ts.Signature[] {
  return checker.getTypeOfSymbol(symbol).getCallSignatures();
}

function isMethod(symbol: ts.Symbol | undefined): boolean {
  return symbol !== undefined && callsOf(symbol).length > 0;
}

function isOptionalParameter(parameter: ts.Symbol): boolean {
  const declaration = parameter.valueDeclaration;
  return (
    declaration !== undefined &&
    ts.isParameter(declaration) &&
    checker.isOptionalParameter(declaration)
  );
}

const options = [...publicTypes].filter(([name]) => /(?:Options|Configuration|Limits)$/.test(name));

describe('options', () => {
  /** Names of what is called otherwise everywhere: `logger`, `clock`, and the event `problem`. */
  const RETIRED = ['log', 'now', 'elapsedMs', 'timers', 'onError', 'onOutcome', 'onRefused'];
  /** Options that notify by a function: their class is no emitter, and the argument is no packet. */
  const NOTIFYING: Readonly<Record<string, readonly string[]>> = {
    AddressAllocatorOptions: ['onRested'],
    LinuxTunOptions: ['onGone'],
    PlanPartitionOptions: ['onRoutes'],
    TunConfiguration: ['onProblem'],
  };

  test('options that are written where they are taken state their defaults too', () => {
    const silent = [...PUBLIC].flatMap(([symbol, name]) =>
      (symbol.declarations ?? []).flatMap((declaration) =>
        inlineOptionsOf(declaration)
          // It means the same everywhere, and without it nothing ends the wait.
          .filter((property) => property.name !== 'signal')
          .filter((property) => !SAYS_ABSENT.test(docOf(property)))
          .map((property) => `${name}: ${property.name}`)
      )
    );
    expect(silent).toEqual([]);
  });

  test.each(options)('%s says what holds where an option is absent', (_, symbol) => {
    const silent = propertiesOf(symbol)
      .filter(isOptional)
      .filter((property) => !SAYS_ABSENT.test(docOf(property)))
      .map(({ name }) => name);
    expect(silent).toEqual([]);
  });

  test.each(options)('%s has none of the retired names', (_, symbol) => {
    const names = propertiesOf(symbol).map(({ name }) => name);
    expect(names.filter((name) => RETIRED.includes(name))).toEqual([]);
  });

  test.each(options)('%s has no functions for notifications', (name, symbol) => {
    const names = propertiesOf(symbol).map((property) => property.name);
    expect(names.filter((each) => /^on[A-Z]/.test(each))).toEqual(NOTIFYING[name] ?? []);
  });

  test.each(options.filter(isOwnStyle))('%s has units in the names of its times', (_, symbol) => {
    const names = propertiesOf(symbol).map(({ name }) => name);
    expect(
      names.filter((name) => /(?:[tT]imeout|[iI]nterval|[lL]ifetime|[dD]elay)$/.test(name))
    ).toEqual([]);
  });
});

/** The optional properties in the types that are written out for optional parameters. */
function inlineOptionsOf(declaration: ts.Declaration): readonly ts.Symbol[] {
  const found: ts.Symbol[] = [];
  const collect = (node: ts.Node): void => {
    if (ts.isPropertySignature(node) && node.questionToken !== undefined) {
      found.push(checker.getSymbolAtLocation(node.name)!);
    }
    ts.forEachChild(node, collect);
  };
  visitPublic(declaration, (node) => {
    if (!ts.isParameter(node) || node.type === undefined) return;
    if (checker.isOptionalParameter(node)) collect(node.type);
  });
  return found;
}

/** Words by which a docstring says what holds where the option is absent. */
const SAYS_ABSENT =
  /\b(?:[Dd]efaults?|[Aa]bsent|[Ll]eft out|[Nn]ot given|[Ww]ithout (?:it|them|the|a|one)|[Ww]here there is none)\b|\bwithout\./;

function propertiesOf(symbol: ts.Symbol): readonly ts.Symbol[] {
  const type = checker.getDeclaredTypeOfSymbol(symbol);
  return type.isUnion() ? type.types.flatMap((each) => each.getProperties()) : type.getProperties();
}

describe('default values', () => {
  /** The defaults whose options have another name than the frozen object. */
  const OPTIONS_OF: Readonly<Record<string, readonly string[]>> = {
    SOCKET_DEVICE_DEFAULTS: ['UdpDeviceOptions', 'UnixDeviceOptions', 'DeviceOptions'],
  };
  const defaults = [...values].filter(([name]) => name.endsWith('_DEFAULTS')) as [
    string,
    Readonly<Record<string, unknown>>,
  ][];

  function optionsOf(name: string): readonly ts.Symbol[] {
    const pascal = name
      .replace(/_DEFAULTS$/, '')
      .toLowerCase()
      .replace(/(?:^|_)(\w)/g, (_, letter: string) => letter.toUpperCase());
    return (OPTIONS_OF[name] ?? [`${pascal}Options`]).map((each) => {
      const symbol = publicTypes.get(each);
      if (symbol === undefined) throw new Error(`${name}: there is no public type ${each}`);
      return symbol;
    });
  }

  test.each(defaults)('%s cannot be changed', (_, value) => {
    expect(unfrozenIn(value)).toEqual([]);
  });

  test.each(defaults)('%s has what the docstrings say', (name, value) => {
    const properties = optionsOf(name).flatMap(propertiesOf);
    expect(faultsOf(value, properties)).toEqual([]);
  });

  test('there are none in docstrings alone', () => {
    const known = new Set(
      defaults.flatMap(([name, value]) => withDefault(value, optionsOf(name).flatMap(propertiesOf)))
    );
    const unknown = options.filter(isOwnStyle).flatMap(([name, symbol]) =>
      propertiesOf(symbol)
        .filter((property) => isOptional(property) && statesLiteral(docOf(property)))
        .filter((property) => !known.has(property.declarations?.[0]))
        .map((property) => `${name}.${property.name}: ${docOf(property)}`)
    );
    expect(unknown).toEqual([]);
  });
});

/** The paths in a value at which there is an object that can be changed. */
function unfrozenIn(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null) return [];
  const inner = Object.entries(value).flatMap(([key, each]) => unfrozenIn(each, `${path}.${key}`));
  return Object.isFrozen(value) ? inner : [path, ...inner];
}

/** What is amiss between default values and the docstrings of the options. */
function faultsOf(
  defaults: Readonly<Record<string, unknown>>,
  properties: readonly ts.Symbol[]
): string[] {
  return Object.entries(defaults).flatMap(([key, value]) => {
    const options = properties.filter(({ name }) => name === key);
    if (options.length === 0) return [`${key} is no option`];
    if (isPlainObject(value)) return faultsOf(value, options.flatMap(innerOf));
    return options.flatMap((option) => {
      if (!isOptional(option)) return [`${key} is not optional`];
      return saysDefault(docOf(option), key, value)
        ? []
        : [`${key}: ${value} is not in: ${docOf(option)}`];
    });
  });
}

/** The declarations of the options that have a default value. */
function withDefault(
  defaults: Readonly<Record<string, unknown>>,
  properties: readonly ts.Symbol[]
): (ts.Declaration | undefined)[] {
  return Object.entries(defaults).flatMap(([key, value]) => {
    const options = properties.filter(({ name }) => name === key);
    const inner = isPlainObject(value) ? withDefault(value, options.flatMap(innerOf)) : [];
    return [...inner, ...options.map(({ declarations }) => declarations?.[0])];
  });
}

function innerOf(property: ts.Symbol): readonly ts.Symbol[] {
  return checker.getNonNullableType(checker.getTypeOfSymbol(property)).getProperties();
}

function isPlainObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((each) => typeof each !== 'function')
  );
}
