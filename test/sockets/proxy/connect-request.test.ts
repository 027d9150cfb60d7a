/** What of a CONNECT request is not parsed by Node, and what is. */
import { setImmediate as nextRound } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { HostPort } from '../../../src/base/host-port.ts';
import {
  CONNECT_ACCEPTED,
  connectFailed,
  connectRefused,
  parseAuthority,
  parseBasic,
} from '../../../src/sockets/proxy/connect-request.ts';
import {
  ConnectRequestParser,
  headerLength,
} from '../../../src/sockets/proxy/connect-request-parser.ts';
import { DIAL_REPLIES } from '../../../src/sockets/proxy/proxy-outcome.ts';
import { Random } from '../../support/random.ts';

const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;

describe('parseAuthority', () => {
  test.each<[string, HostPort]>([
    ['web.test:80', { host: 'web.test', port: 80 }],
    ['10.2.0.1:65535', { host: '10.2.0.1', port: 65_535 }],
    ['[2001:DB8::1]:443', { host: '2001:DB8::1', port: 443 }],
  ])('reads %s', (text, target) => {
    expect(parseAuthority(text)).toEqual(target);
  });

  test('reads names of up to 255 characters', () => {
    const host = 'a'.repeat(255);
    expect(parseAuthority(`${host}:1`)).toEqual({ host, port: 1 });
    expect(parseAuthority(`${host}a:1`)).toBeUndefined();
  });

  test.each([
    '',
    'web.test',
    'web.test:',
    ':80',
    'web.test:0',
    'web.test:65536',
    'web.test:00080000',
    'web.test:+80',
    'web.test:8 0',
    'user@web.test:80',
    'http://web.test:80',
    'web.test:80/',
    'web.test:80?x',
    'web%2etest:80',
    '2001:db8::1:443',
    '[2001:db8::1]',
    '[10.2.0.1]:80',
    '[fe80::1%25eth0]:80',
    '[]:80',
  ])('does not take %j for a target', (text) => {
    expect(parseAuthority(text)).toBeUndefined();
  });
});

describe('parseBasic', () => {
  test.each([
    [basic('user:secret'), 'user', 'secret'],
    [basic('user:with:colons'), 'user', 'with:colons'],
    [basic('ü:ß').replace('Basic', 'bASIC'), 'ü', 'ß'],
    [basic(':'), '', ''],
  ])('reads %s', (header, username, password) => {
    const given = parseBasic(header)!;
    expect([given.username.toString(), given.password.toString()]).toEqual([username, password]);
  });

  test.each([
    undefined,
    '',
    'Basic',
    'Basic ',
    basic('no colon'),
    'Basic ====',
    'Basic dXNlcg==, Basic dXNlcg==',
    'Bearer dXNlcjpzZWNyZXQ=',
  ])('finds nothing in %j', (header) => {
    expect(parseBasic(header)).toBeUndefined();
  });
});

describe('answers', () => {
  test('an accepted request has no header that speaks of a body (RFC 9110 section 9.3.6)', () => {
    expect(CONNECT_ACCEPTED.toString()).toBe('HTTP/1.1 200 Connection Established\r\n\r\n');
  });

  test('a refusal says what is wrong, and closes', () => {
    expect(connectRefused('unsupported').toString().split('\r\n')).toEqual([
      'HTTP/1.1 405 Method Not Allowed',
      'Allow: CONNECT',
      'Content-Type: text/plain; charset=utf-8',
      'Content-Length: 45',
      'Connection: close',
      '',
      'This proxy has no other method than CONNECT.\n',
    ]);
    expect(connectRefused('unauthenticated').toString()).toContain('Proxy-Authenticate: Basic ');
  });

  test('a target that cannot be reached is named, with the error of RFC 9209', () => {
    const answer = connectFailed({ host: '2001:db8::1', port: 80 }, DIAL_REPLIES.noAnswer);
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 504 Gateway Timeout\r\n/);
    expect(answer.toString()).toContain('Proxy-Status: virtual-presence; error=connection_timeout');
    expect(answer.toString()).toMatch(/\r\n\r\n\[2001:db8::1\]:80 does not answer\.\n$/);
  });
});

describe('ConnectRequestParser', () => {
  const parser = new ConnectRequestParser(8192);

  async function outcomeOf(bytes: Buffer): Promise<string> {
    const length = headerLength(bytes);
    if (length === undefined) return 'wait';
    const seen: string[] = [];
    parser.read(bytes.subarray(0, length), {
      onConnectRequest: (authority, authorization) => {
        seen.push(`connect ${authority} ${authorization} ${bytes.subarray(length)}`);
      },
      onOtherRequest: (reason) => seen.push(reason),
    });
    await nextRound();
    expect(seen).toHaveLength(1);
    return seen[0]!;
  }

  const request = (text: string): Promise<string> => outcomeOf(Buffer.from(text));

  test('finds the target, the credentials and what follows', async () => {
    expect(
      await request('CONNECT web.test:80 HTTP/1.1\r\nProxy-Authorization: Basic x\r\n\r\nGET /')
    ).toBe('connect web.test:80 Basic x GET /');
    expect(await request('CONNECT web.test:80 HTTP/1.0\r\n\r\n')).toBe(
      'connect web.test:80 undefined '
    );
    expect(await request('\r\nCONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: x\r\n\r\n')).toBe(
      'connect [2001:db8::1]:80 undefined '
    );
  });

  test.each([
    ['GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n', 'unsupported'],
    ['GET / HTTP/1.1\r\n\r\n', 'unsupported'],
    [
      'POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n',
      'unsupported',
    ],
    ['POST / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n', 'unsupported'],
    [
      'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
      'unsupported',
    ],
    ['OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n', 'unsupported'],
    ['BREW pot HTTP/1.1\r\n\r\n', 'malformed'],
    ['CONNECT web.test:80 HTTP/3.0\r\n\r\n', 'malformed'],
    ['CONNECT web.test:80 HTTP/1.1\r\nno colon\r\n\r\n', 'malformed'],
    ['CONNECT web.test:80 HTTP/1.1\nHost: x\n\n', 'malformed'],
    ['connect web.test:80 HTTP/1.1\r\n\r\n', 'malformed'],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'malformed'],
    ['CONNECT web.test:80 HTTP/1.1\r\nHost: x\r\n', 'wait'],
  ])('%j is %s', async (text, outcome) => {
    expect(await request(text)).toBe(outcome);
  });

  test('a header ends with its empty line, and not before', () => {
    const header = Buffer.from('\r\n\nCONNECT web.test:80 HTTP/1.1\r\nHost: x\r\n\r\n');
    for (let cut = 0; cut < header.length; cut++) {
      expect(headerLength(header.subarray(0, cut)), `cut ${cut}`).toBeUndefined();
    }
    expect(headerLength(header)).toBe(header.length);
    expect(headerLength(Buffer.concat([header, header]))).toBe(header.length);
  });

  test('100,000 mutated texts are targets or credentials of the right form, or nothing', () => {
    const seed = 20_262;
    console.info(`seed ${seed}`);
    const random = new Random(seed);
    let found = 0;
    for (let run = 0; run < 100_000; run++) {
      const target = parseAuthority(mutated(random, 'a.test:80', '[::1]:443', '10.2.0.1:8080'));
      const given = parseBasic(mutated(random, basic('user:secret'), 'Basic Og=='));
      if (target !== undefined) {
        found++;
        const isPort = Number.isInteger(target.port) && target.port > 0 && target.port < 65_536;
        if (!isPort || !/^[\w.:-]+$/.test(target.host)) expect.fail(`run ${run} of seed ${seed}`);
      }
      if (given?.username.includes(0x3a)) expect.fail(`run ${run} of seed ${seed}`);
    }
    expect(found).toBeGreaterThan(20_000);
  });

  test('10,000 mutated requests have an outcome or wait, and none throws', async () => {
    const seed = 20_263;
    console.info(`seed ${seed}`);
    const random = new Random(seed);
    const outcomes = new Set<string>();
    for (let run = 0; run < 10_000; run++) {
      const bytes = Buffer.from(
        'CONNECT web.test:80 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic Og==\r\n\r\n'
      );
      for (let i = random.between(1, 3); i > 0; i--) {
        bytes[random.below(bytes.length)] = random.below(256);
      }
      const outcome = await outcomeOf(bytes);
      outcomes.add(outcome.split(' ')[0]!);
    }
    expect([...outcomes].sort()).toEqual(['connect', 'malformed', 'wait']);
  });
});

function mutated(random: Random, ...valid: string[]): string {
  const bytes = Buffer.from(random.pick(valid), 'latin1');
  for (let i = random.below(3); i > 0; i--) bytes[random.below(bytes.length)] = random.below(128);
  return bytes.toString('latin1');
}
