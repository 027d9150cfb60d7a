/** The log lines of gateways that the command runs. */
import { expect, test } from 'vitest';
import { type LogOptions, openLogger } from '../../src/cli/log.ts';
import { EnvironmentError } from '../../src/errors.ts';
import type { Logger } from '../../src/observe/index.ts';
import { TestIo } from './run-command.ts';

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

function linesOf(options: Partial<LogOptions>, use: (logger: Logger) => void): string[] {
  const io = new TestIo();
  use(openLogger(io, { logFormat: 'text', logLevel: 'info', ...options }));
  expect(io.out).toBe('');
  return io.err.split('\n').slice(0, -1);
}

test('a line of text has time, level and message', () => {
  const [line] = linesOf({}, (logger) => logger.warn({ event: 'pool_warning' }, 'names are slow'));
  const [time, ...rest] = line!.split(' ');
  expect(time).toMatch(TIME);
  expect(rest.join(' ')).toBe('warn names are slow');
});

test('what a peer has written begins no line of its own', () => {
  const lines = linesOf({}, (logger) => logger.info({}, 'refused: a\nb\u001b[2J'));
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/info refused: a\\nb\\u001b\[2J$/);
});

test('a line of JSON has time, level, event and message first, and then all fields', () => {
  const err = new EnvironmentError('the port is in use');
  const fields = { site: 'site-a', code: 'busy', event: 'tunnel_down' as const, count: 5n, err };
  const [line] = linesOf({ logFormat: 'json' }, (logger) => logger.error(fields, 'it is down'));
  const { time, ...rest } = JSON.parse(line!) as Record<string, unknown>;
  expect(time).toMatch(TIME);
  expect(rest).toEqual({
    level: 'error',
    event: 'tunnel_down',
    message: 'it is down',
    site: 'site-a',
    code: 'busy',
    count: '5',
    err: { name: 'EnvironmentError', code: 'ERR_PRESENCE_ENVIRONMENT', message: err.message },
  });
  expect(Object.keys(JSON.parse(line!))).toEqual([
    ...['time', 'level', 'event', 'message', 'site', 'code', 'count', 'err'],
  ]);
});

test('fields do not replace what every line has, and one that refers to itself is left out', () => {
  const odd: Record<string, unknown> = { level: 'none', message: 'none', time: 'none' };
  const self: Record<string, unknown> = { event: 'e' };
  self.self = self;
  const lines = linesOf({ logFormat: 'json' }, (logger) => {
    logger.info(odd, 'first');
    logger.info(self, 'second');
  });
  expect(JSON.parse(lines[0]!)).toMatchObject({ level: 'info', message: 'first' });
  expect(JSON.parse(lines[0]!).time).toMatch(TIME);
  expect(JSON.parse(lines[1]!)).toMatchObject({ level: 'info', event: 'e', message: 'second' });
});

test.each([
  ['debug', ['debug', 'info', 'warn', 'error']],
  ['warn', ['warn', 'error']],
  ['error', ['error']],
] as const)('--log-level %s writes the lines of that level and above', (logLevel, expected) => {
  const lines = linesOf({ logLevel }, (logger) => {
    for (const level of ['debug', 'info', 'warn', 'error'] as const) logger[level]({}, 'x');
  });
  expect(lines.map((line) => line.split(' ')[1])).toEqual(expected);
});
