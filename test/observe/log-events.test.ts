/** Every log line of the library and of the command names a known event, and each event is logged in one place. */
import { readdirSync, readFileSync } from 'node:fs';
import ts from 'typescript';
import { expect, test } from 'vitest';
import { LOG_EVENTS } from '../../src/observe/index.ts';

const FILES = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => `src/${name}`);
const LEVELS = ['debug', 'info', 'warn', 'error'];

interface Found {
  /** Calls of a logger whose fields have no event, by place. */
  readonly without: string[];
  readonly calls: number;
  /** The names of events, once for each place. */
  readonly events: string[];
}

function look(path: string): Found {
  const text = readFileSync(path, 'utf8');
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true);
  const found = { without: [] as string[], calls: 0, events: [] as string[] };
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && isLogCall(node)) {
      found.calls++;
      const fields = node.arguments.at(-2);
      if (fields === undefined || !hasEvent(fields, source)) {
        const { line } = source.getLineAndCharacterOfPosition(node.pos);
        found.without.push(`${path}:${line + 1}`);
      }
    }
    if (ts.isStringLiteral(node) && isEvent(node)) found.events.push(node.text);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** Whether a text is the value of something with the name `event`, or is given to a function that logs. */
function isEvent(node: ts.StringLiteral): boolean {
  const { parent } = node;
  if (ts.isPropertyAssignment(parent) || ts.isVariableDeclaration(parent)) {
    return parent.name.getText() === 'event';
  }
  if (!ts.isCallExpression(parent) || !(node.text in LOG_EVENTS)) return false;
  return /^(reporter|this\.#(warn|log|report))$/.test(parent.expression.getText());
}

/** `logger.warn(fields, text)` or `host.log(level, fields, text)`, however the object is reached. */
function isLogCall({ expression }: ts.CallExpression): boolean {
  if (!ts.isPropertyAccessExpression(expression)) return false;
  const owner = expression.expression.getText();
  if (/(^|\.)#?logger$/.test(owner)) return LEVELS.includes(expression.name.text);
  return /(^|\.)#?host$/.test(owner) && expression.name.text === 'log';
}

/** Whether an object, or the object that a variable is made of, has the key `event`. */
function hasEvent(fields: ts.Expression, source: ts.SourceFile): boolean {
  if (ts.isObjectLiteralExpression(fields)) {
    return fields.properties.some((property) => property.name?.getText() === 'event');
  }
  if (!ts.isIdentifier(fields)) return false;
  let isFound = false;
  const visit = (node: ts.Node): void => {
    if (ts.isVariableDeclaration(node) && node.name.getText() === fields.text) {
      let value = node.initializer;
      while (value !== undefined && ts.isAsExpression(value)) value = value.expression;
      isFound ||=
        value !== undefined && ts.isObjectLiteralExpression(value) && hasEvent(value, source);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return isFound;
}

const all = FILES.map(look);

test('every call of a logger has an event', () => {
  expect(all.reduce((sum, { calls }) => sum + calls, 0)).toBeGreaterThan(35);
  expect(all.flatMap(({ without }) => without)).toEqual([]);
});

test('every event is logged in one place', () => {
  // TypeScript refuses an event that is not in the list.
  const events = all.flatMap((found) => found.events);
  expect([...events].sort()).toEqual(Object.keys(LOG_EVENTS).sort());
});

test('docs/monitoring.md has the events and what they mean', () => {
  const rows = [
    ...readFileSync('docs/monitoring.md', 'utf8').matchAll(/^\| `([a-z_]+)` \| ([^|]+) \|$/gm),
  ].map(([, event, text]) => [event!, text!]);
  expect(rows).toEqual(Object.entries(LOG_EVENTS));
});
