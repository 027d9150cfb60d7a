/**
 * JSON from a hostile peer: random values, and valid messages with faults.
 * @module
 */
import type { Json } from '../../src/store/index.ts';
import type { Random } from '../support/random.ts';
import { mutate } from './fuzz-cases.ts';

/** Returns a random value, of any depth. */
export function anyJson(random: Random, depth = 0): Json {
  const kind = random.below(depth > 4 ? 4 : 7);
  switch (kind) {
    case 0:
      return random.pick([null, true, false]);
    case 1:
      return random.pick(NUMBERS);
    case 2:
    case 3:
      return random.pick(TEXTS);
    case 4:
      return nested(random.pick([1, 3, 200]));
    case 5:
      return Array.from({ length: random.below(5) }, () => anyJson(random, depth + 1));
    default:
      return Object.fromEntries(
        Array.from({ length: random.below(5) }, () => [
          random.pick(KEYS),
          anyJson(random, depth + 1),
        ])
      );
  }
}

/** Returns a copy with one to three of its parts replaced, removed or added. */
export function spoil(random: Random, message: Json): Json {
  const copy = structuredClone(message);
  let spoilt: Json = copy;
  for (let faults = random.between(1, 3); faults > 0; faults--) {
    const path = random.pick(pathsOf(spoilt));
    spoilt = replaced(spoilt, path, random);
  }
  return spoilt;
}

/** Returns the text of a message with faults, as JSON if it still is. */
export function spoilText(random: Random, message: Json): Json | undefined {
  try {
    return JSON.parse(mutate(random, Buffer.from(JSON.stringify(message))).toString());
  } catch {
    return undefined;
  }
}

type Path = readonly string[];

function pathsOf(value: Json, path: Path = [], paths: Path[] = []): Path[] {
  paths.push(path);
  // These are enough parts to choose from; deep values are not descended into.
  if (paths.length > 200 || typeof value !== 'object' || value === null) return paths;
  for (const [key, each] of Object.entries(value)) pathsOf(each, [...path, key], paths);
  return paths;
}

function replaced(value: Json, [key, ...rest]: Path, random: Random): Json {
  if (key === undefined) return anyJson(random);
  const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<
    string,
    Json
  >;
  if (rest.length > 0 || random.chance(0.7)) copy[key] = replaced(copy[key]!, rest, random);
  else if (random.chance(0.5)) delete copy[key];
  else setOwn(copy, random.pick(KEYS), anyJson(random));
  return copy as unknown as Json;
}

/** `JSON.parse` too creates an own property for any name. */
function setOwn(object: object, key: string, value: Json): void {
  if (Array.isArray(object)) {
    object.push(value);
    return;
  }
  Object.defineProperty(object, key, {
    value,
    enumerable: true,
    configurable: true,
    writable: true,
  });
}

function nested(depth: number): Json {
  let value: Json = [];
  for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { a: value };
  return value;
}

const NUMBERS: readonly number[] = [
  ...[0, -0, 1, -1, 0.5, 255, 65_536, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 53), 1e308, 5e-324],
  Number.MAX_SAFE_INTEGER,
];
const TEXTS: readonly string[] = [
  ...[
    '',
    ' ',
    'a',
    'site-a',
    '10.0.0.5',
    '10.0.0.0/24',
    'tcp/80',
    'fd00::/64',
    'ack',
    '\0',
    '\u202e',
  ],
  ...['\ud800', 'é', '__proto__', '..', 'a.'.repeat(126), 'x'.repeat(64), 'x'.repeat(70_000)],
  ...['ERR_X', '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n'],
];
const KEYS: readonly string[] = [
  ...['type', 'revision', 'counters', 'snapshot', 'csrPem', 'caPem', 'renew', 'code', 'message'],
  ...['__proto__', 'constructor', 'toString', 'hasOwnProperty', '', '0', 'length', 'x'.repeat(65)],
];
