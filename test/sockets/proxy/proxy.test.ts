/** What the proxy does with good requests, and with targets that it cannot reach. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { PROXY_DEFAULTS } from '../../../src/sockets/proxy/proxy-options.ts';
import { socksReply } from '../../../src/sockets/proxy/socks.ts';
import { SocketStack } from '../../../src/sockets/stack.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { SITE } from '../stack-network.ts';
import { settled, until } from '../worlds.ts';
import {
  ACCEPTED,
  basic,
  CREDENTIALS,
  closeScenes,
  countsOf,
  credentials,
  httpRequest,
  LET_IN,
  METHODS,
  scene,
  socksRequest,
  USER,
} from './proxy-kit.ts';

closeScenes();

describe('a connection', () => {
  test('goes by SOCKS5, and the reply has the local end', async () => {
    const { client, accepted, proxy } = await scene();
    const one = client().send(METHODS);
    expect(await one.take(2)).toEqual(Buffer.of(5, 2));
    one.send(CREDENTIALS);
    expect(await one.take(2)).toEqual(Buffer.of(1, 0));
    one.send(socksRequest('server.test', 7));
    const reply = await one.take(10);
    const { remotePort: port } = accepted[0]!;
    expect(reply).toEqual(socksReply(0, { host: '10.1.0.1', port: port! }));
    one.send('hello');
    expect(String(await one.take(5))).toBe('hello');
    one.socket.end();
    expect((await one.rest()).length).toBe(0);
    expect(countsOf(proxy)).toEqual({ accepted: 1, connected: 1 });
  });

  test('goes to an IPv6 address by SOCKS5, and the reply has an IPv6 address', async () => {
    const { client } = await scene({ auth: false });
    const address = Buffer.from('20010db8000200000000000000000001', 'hex');
    const one = client().send(Buffer.of(5, 1, 0, 5, 1, 0, 4), address, Buffer.of(0, 7));
    const reply = await one.take(2 + 22);
    expect(reply.subarray(0, -2)).toEqual(
      Buffer.concat([
        Buffer.of(5, 0, 5, 0, 0, 4),
        Buffer.from('20010db8000100000000000000000001', 'hex'),
      ])
    );
  });

  test('goes by CONNECT, to a name or an address', async () => {
    const { client, proxy } = await scene();
    for (const target of ['server.test:7', 'SERVER:7', '10.2.0.1:7', '[2001:db8:2::1]:7']) {
      const one = client().send(httpRequest(target), 'hello');
      expect(String(await one.take(ACCEPTED.length + 5)), target).toBe(`${ACCEPTED}hello`);
    }
    expect(countsOf(proxy)).toEqual({ accepted: 4, connected: 4 });
  });

  test('carries what the client has sent right behind its request, also with its first byte', async () => {
    const { client } = await scene();
    const data = 'x'.repeat(300_000);
    const socks = client().send(METHODS, CREDENTIALS, socksRequest('server.test', 7), data);
    expect((await socks.take(4 + 10)).subarray(0, 5)).toEqual(Buffer.of(...LET_IN, 5));
    expect(String(await socks.take(data.length))).toBe(data);
    const http = client().send(httpRequest('server.test:7'), data);
    expect(String(await http.take(ACCEPTED.length + data.length))).toBe(ACCEPTED + data);
  });

  test('ends in one direction and then in the other', async () => {
    const { client, accepted } = await scene();
    const one = client().send(httpRequest('server.test:7'));
    await one.take(ACCEPTED.length);
    accepted[0]!.unpipe().end('bye');
    await until(() => one.isEnded);
    expect(String(await one.take(3))).toBe('bye');
    one.socket.end('late');
    let late = '';
    accepted[0]!.on('data', (chunk) => {
      late += chunk;
    });
    accepted[0]!.resume();
    await once(accepted[0]!, 'end');
    expect(late).toBe('late');
  });

  test('is reset at both ends when one is', async () => {
    const { client, accepted } = await scene();
    const one = client().send(httpRequest('server.test:7'));
    await one.take(ACCEPTED.length);
    accepted[0]!.resetAndDestroy();
    await one.closed();
    expect(one.error).toBe('ECONNRESET');
    const other = client().send(httpRequest('server.test:7'));
    await other.take(ACCEPTED.length);
    const failed = once(accepted[1]!, 'error');
    other.socket.resetAndDestroy();
    expect(await failed).toMatchObject([{ code: 'ECONNRESET' }]);
  });

  test('a second request on it is data for the target', async () => {
    const { client, proxy } = await scene();
    const request = httpRequest('server.test:7');
    const http = client().send(request, request);
    expect(String(await http.take(ACCEPTED.length + request.length))).toBe(ACCEPTED + request);
    const socks = client().send(METHODS, CREDENTIALS, socksRequest('server.test', 7), METHODS);
    expect((await socks.take(14 + 3)).subarray(14)).toEqual(METHODS);
    expect(countsOf(proxy)).toEqual({ accepted: 2, connected: 2 });
  });
});

describe('a target that cannot be reached', () => {
  test.each([
    ['a name outside the zone', 'example.com', 80, 'unknownName', 4, 502, 'dns_error'],
    ['the loopback name', 'localhost', 80, 'unknownName', 4, 502, 'dns_error'],
    ['a number for an address', '2130706433', 80, 'unknownName', 4, 502, 'dns_error'],
    ['loopback', '127.0.0.1', 80, 'networkUnreachable', 3, 502, 'destination_ip_unroutable'],
    ['no address', '0.0.0.0', 80, 'networkUnreachable', 3, 502, 'destination_ip_unroutable'],
    ['loopback in IPv6', '::1', 80, 'networkUnreachable', 3, 502, 'destination_ip_unroutable'],
    [
      'loopback as IPv4 in IPv6',
      '::ffff:127.0.0.1',
      80,
      'networkUnreachable',
      3,
      502,
      'destination_ip_unroutable',
    ],
    [
      'the metadata address',
      '169.254.169.254',
      80,
      'networkUnreachable',
      3,
      502,
      'destination_ip_unroutable',
    ],
    [
      'a host of the site',
      '10.3.0.1',
      80,
      'networkUnreachable',
      3,
      502,
      'destination_ip_unroutable',
    ],
    ['the stack itself', '10.1.0.1', 80, 'networkUnreachable', 3, 502, 'destination_ip_unroutable'],
    [
      'a port that nobody listens at',
      'server.test',
      9,
      'connectionRefused',
      5,
      502,
      'connection_refused',
    ],
    [
      'a port that no presence has',
      'web.test',
      81,
      'connectionRefused',
      5,
      502,
      'connection_refused',
    ],
  ] as const)('%s', async (_, host, port, outcome, socks, status, error) => {
    const { client, proxy, network } = await scene();
    const one = client().send(METHODS, CREDENTIALS, socksRequest(host, port));
    expect(await one.rest()).toEqual(Buffer.concat([LET_IN, socksReply(socks)]));
    const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    const answer = String(await client().send(httpRequest(authority)).rest());
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(answer).toContain(`\r\nProxy-Status: virtual-presence; error=${error}\r\n`);
    expect(answer).toContain(`\r\n\r\n${authority} `);
    expect(countsOf(proxy)).toEqual({ accepted: 2, [outcome]: 2 });
    if (port === 80) expect(network.packets).toBe(0);
  });

  test('a port 0 is refused', async () => {
    const { client, proxy } = await scene();
    const one = client().send(METHODS, CREDENTIALS, socksRequest('server.test', 0));
    expect(await one.rest()).toEqual(Buffer.concat([LET_IN, socksReply(5)]));
    const answer = await client().send(httpRequest('server.test:0')).rest();
    expect(String(answer)).toMatch(/^HTTP\/1.1 400 /);
    expect(countsOf(proxy)).toEqual({ accepted: 2, connectionRefused: 1, malformed: 1 });
  });

  test('does not answer', async () => {
    const clock = new FakeClock();
    const { client, proxy, network } = await scene({ auth: USER }, { clock });
    network.silent.add('10.2.0.1');
    const one = client().send(METHODS, CREDENTIALS, socksRequest('server.test', 7));
    const other = client().send(httpRequest('server.test:7'));
    await one.take(4);
    await until(() => network.packets >= 2);
    // The SYN is repeated: 127 s.
    for (let s = 0; s < 130; s++) {
      clock.advance(1000);
      await settled();
    }
    expect(await one.rest()).toEqual(socksReply(4));
    expect(String(await other.rest())).toMatch(/^HTTP\/1.1 504 [\s\S]*error=connection_timeout/);
    expect(countsOf(proxy)).toEqual({ accepted: 2, noAnswer: 2 });
  });

  test('waits for the tunnel, and is refused when it does not come up', async () => {
    const clock = new FakeClock();
    const { client, proxy, stack } = await scene({ auth: USER }, { clock });
    stack.linkChanged(false);
    const one = client().send(METHODS, CREDENTIALS, socksRequest('server.test', 7));
    const other = client().send(httpRequest('server.test:7'));
    await one.take(4);
    await until(
      () => clock.delays.filter((ms) => ms === 5000).length === 0 || proxy.counters.accepted === 2
    );
    await settled();
    clock.advance(5000);
    expect(await one.rest()).toEqual(socksReply(3));
    expect(String(await other.rest())).toMatch(
      /^HTTP\/1.1 503 [\s\S]*error=destination_unavailable/
    );
    expect(countsOf(proxy)).toEqual({ accepted: 2, networkDown: 2 });
  });

  test('is withdrawn while it is connected', async () => {
    const { client, proxy, stack, network } = await scene();
    network.silent.add('10.2.0.1');
    const one = client().send(METHODS, CREDENTIALS, socksRequest('server.test', 7));
    await until(() => network.packets > 0);
    stack.setSite({ ...SITE, hosts: [] });
    expect(await one.rest()).toEqual(Buffer.concat([LET_IN, socksReply(1)]));
    expect(countsOf(proxy)).toEqual({ accepted: 1, failed: 1 });
  });
});

describe('credentials', () => {
  test('are a user name and a password that nobody can guess', async () => {
    const [one, other] = [await scene({}), await scene({})];
    expect(one.proxy.username).toBe('presence');
    expect(one.proxy.password).toMatch(/^[\w-]{24}$/);
    expect(other.proxy.password).not.toBe(one.proxy.password);
    const { password, port } = { password: one.proxy.password!, port: one.port };
    expect(one.proxy.httpUrl).toBe(`http://presence:${password}@127.0.0.1:${port}`);
    expect(one.proxy.socksUrl).toBe(`socks5h://presence:${password}@127.0.0.1:${port}`);
    const client = one.client().send(METHODS, credentials('presence', password));
    expect(await client.take(4)).toEqual(LET_IN);
  });

  test('are quoted in the URLs', async () => {
    const { proxy } = await scene({ auth: { username: 'ü ser', password: 'p@ss/word:1234' } });
    const url = new URL(proxy.httpUrl!);
    expect(decodeURIComponent(url.username)).toBe('ü ser');
    expect(decodeURIComponent(url.password)).toBe('p@ss/word:1234');
  });

  test('that are wrong are refused after a second', async () => {
    const clock = new FakeClock();
    const { client, proxy } = await scene({ auth: USER }, { clock });
    const wrong = [
      credentials(USER.username, 'a long Secret'),
      credentials('User', USER.password),
      credentials(USER.username, ''),
      credentials('', ''),
      credentials(USER.password, USER.username),
    ];
    const clients = wrong.map((bytes) => client().send(METHODS, bytes));
    for (const text of ['user:wrong password', 'other:a long secret', ':']) {
      const header = `Basic ${Buffer.from(text).toString('base64')}`;
      clients.push(client().send(httpRequest('server.test:7', header)));
    }
    await until(() => proxy.counters.wrongCredentials === 8);
    for (const one of clients.slice(0, 5)) expect(await one.take(2)).toEqual(Buffer.of(5, 2));
    await settled();
    expect(clients.map(({ received, isEnded }) => [received.length, isEnded])).toEqual(
      clients.map(() => [0, false])
    );
    clock.advance(1000);
    for (const one of clients.slice(0, 5)) expect(await one.rest()).toEqual(Buffer.of(1, 1));
    for (const one of clients.slice(5)) {
      expect(String(await one.rest())).toMatch(
        /^HTTP\/1.1 407 [\s\S]*Proxy-Authenticate: Basic realm/
      );
    }
    expect(countsOf(proxy)).toEqual({ accepted: 8, wrongCredentials: 8 });
  });

  test('that are wrong 16 times at once get no more replies, and keep nobody out', async () => {
    const clock = new FakeClock();
    const { client, proxy } = await scene({ auth: USER }, { clock });
    const wrong = credentials('user', 'another secret');
    const clients = Array.from({ length: 20 }, () => client().send(METHODS, wrong));
    await until(() => proxy.counters.wrongCredentials === 20);
    await until(() => clients.filter(({ isGone }) => isGone).length === 4);
    const right = client().send(METHODS, CREDENTIALS);
    expect(await right.take(4)).toEqual(LET_IN);
    clock.advance(1000);
    await until(() => clients.every(({ isGone }) => isGone));
    expect(clients.filter(({ received }) => received.length === 4).length).toBe(16);
    // There is room again.
    const next = client().send(METHODS, wrong);
    await until(() => proxy.counters.wrongCredentials === 21);
    clock.advance(1000);
    expect(await next.rest()).toEqual(Buffer.of(5, 2, 1, 1));
  });

  test('that are missing are asked for', async () => {
    const { client, proxy } = await scene();
    expect(
      await client()
        .send(Buffer.of(5, 1, 0))
        .rest()
    ).toEqual(Buffer.of(5, 255));
    const answers = [
      'CONNECT server.test:7 HTTP/1.1\r\n\r\n',
      httpRequest('server.test:7', 'Bearer x'),
      httpRequest('server.test:7', `${basic()}-`),
    ].map((text) => client().send(text).rest());
    for (const answer of await Promise.all(answers)) {
      expect(String(answer)).toMatch(/^HTTP\/1.1 407 [\s\S]*Proxy-Authenticate: Basic realm/);
    }
    expect(countsOf(proxy)).toEqual({ accepted: 4, unauthenticated: 4 });
  });

  test('are not asked for with `auth: false`', async () => {
    const { client, proxy, port } = await scene({ auth: false });
    expect([proxy.username, proxy.password]).toEqual([undefined, undefined]);
    expect(proxy.httpUrl).toBe(`http://127.0.0.1:${port}`);
    const socks = client().send(Buffer.of(5, 2, 2, 0), socksRequest('server.test', 7));
    expect((await socks.take(12)).subarray(0, 4)).toEqual(Buffer.of(5, 0, 5, 0));
    for (const text of ['CONNECT server.test:7 HTTP/1.1\r\n\r\n', httpRequest('server.test:7')]) {
      expect(String(await client().send(text).take(ACCEPTED.length))).toBe(ACCEPTED);
    }
    expect(countsOf(proxy)).toEqual({ accepted: 3, connected: 3 });
  });
});

describe('options', () => {
  test.each([
    [{ auth: true }, 'auth'],
    [{ auth: { username: 'user' } }, 'auth.password'],
    [{ auth: { ...USER, username: '' } }, 'auth.username: must have 1 to 255 bytes'],
    [{ auth: { ...USER, username: 'a:b' } }, 'auth.username: must have'],
    [{ auth: { ...USER, username: 'ü'.repeat(128) } }, 'auth.username: must have'],
    [{ auth: { ...USER, password: 'too short' } }, 'auth.password: must have 12 to 255 bytes'],
    [{ auth: { ...USER, password: 'with a\nline end' } }, 'auth.password: must have'],
    [{ maxConnections: 0 }, 'maxConnections: expected a whole number from 1 to 1048576'],
    [{ maxPending: 1.5 }, 'maxPending: expected a whole number'],
    [{ maxClients: 1 }, 'maxClients: is not a known key'],
  ])('%j is refused, and the message has no password', async (options, message) => {
    const stack = new SocketStack();
    const error: Error = await stack.proxy(0, options as never).then(
      () => expect.fail('it listens'),
      (reason) => reason
    );
    expect(error.name).toBe('ConfigError');
    expect(error.message).toContain(message);
    expect(error.message).not.toContain('short');
    expect(error.message).not.toContain('line end');
    await stack.close();
  });

  test('have defaults', () => {
    expect(PROXY_DEFAULTS).toEqual({ maxConnections: 1024, maxPending: 64 });
  });
});

describe('listening', () => {
  test('at a port that is taken fails', async () => {
    const { stack, port } = await scene();
    await expect(stack.proxy(port)).rejects.toMatchObject({ code: 'EADDRINUSE', port });
    expect(stack.servers.size).toBe(1);
  });

  test.each([
    [65_536, 'listen: expected a whole number from 0 to 65535, got 65536'],
    [undefined, 'listen: is missing'],
    [{ port: 0, path: 'x', mode: 0o600 }, 'listen.port: is not a known key'],
    [{ host: '127.0.0.1' }, 'listen.port: is missing'],
    [{ path: '\0x' }, 'listen.path: expected a path without null bytes'],
  ])('at %j is refused', async (listen, message) => {
    await using stack = new SocketStack();
    await expect(stack.proxy(listen as never)).rejects.toThrow(message);
  });

  test('at an address of the host that it does not have fails', async () => {
    await using stack = new SocketStack();
    await expect(stack.proxy({ host: '192.0.2.1', port: 0 })).rejects.toMatchObject({
      code: 'EADDRNOTAVAIL',
      address: '192.0.2.1',
    });
    expect(stack.servers.size).toBe(0);
  });

  test('with a stack that is closed meanwhile fails', async () => {
    const stack = new SocketStack();
    const listening = stack.proxy(0);
    await Promise.all([
      stack.close(),
      expect(listening).rejects.toMatchObject({ code: 'ENETDOWN', syscall: 'listen' }),
    ]);
  });

  test('with a stack that is closed fails', async () => {
    const stack = new SocketStack();
    await stack.close();
    await expect(stack.proxy({ port: 1 })).rejects.toMatchObject({
      code: 'ENETDOWN',
      syscall: 'listen',
      cause: { message: 'the stack sockets0 is closed' },
    });
  });

  test('at a unix socket lets nobody in but its owner', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'proxy-'));
    const path = join(directory, 'proxy.sock');
    try {
      const { client, proxy } = await scene({ auth: false }, { path });
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect([proxy.address, proxy.httpUrl, proxy.socksUrl]).toEqual([path, undefined, undefined]);
      const one = client().send(httpRequest('server.test:7'), 'hello');
      expect(String(await one.take(ACCEPTED.length + 5))).toBe(`${ACCEPTED}hello`);
      await proxy.close();
      expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('close', () => {
  test('resets clients in every state, and counts those without an outcome', async () => {
    const clock = new FakeClock();
    const { client, proxy, stack, network } = await scene({ auth: USER }, { clock });
    const [silent, socks, http, dialling, tunnel, wrong] = Array.from({ length: 6 }, client);
    socks!.send(METHODS);
    http!.send('CONNECT');
    tunnel!.send(httpRequest('server.test:7'));
    await tunnel!.take(ACCEPTED.length);
    wrong!.send(METHODS, credentials('user', 'wrong password'));
    network.silent.add('10.2.0.1');
    const before = network.packets;
    dialling!.send(httpRequest('server.test:7'));
    await until(() => network.packets > before && proxy.counters.accepted === 6);
    await until(() => proxy.counters.wrongCredentials === 1);
    const closing = proxy.close();
    expect(proxy.close()).toBe(closing);
    await closing;
    await until(() => [silent, socks, http, dialling, tunnel, wrong].every((one) => one!.isGone));
    expect(countsOf(proxy)).toEqual({ accepted: 6, closed: 4, connected: 1, wrongCredentials: 1 });
    expect([stack.servers.size, [...stack.tcp.connections()].length]).toEqual([0, 0]);
    // The refusal of the wrong credentials does not wait any more.
    expect(clock.delays).not.toContain(1000);
  });

  test('happens when the stack is closed', async () => {
    const { client, proxy, stack } = await scene();
    const one = client().send(httpRequest('server.test:7'));
    await one.take(ACCEPTED.length);
    await stack.close();
    await one.closed();
    await proxy.close();
    const late = client();
    await late.closed();
    expect(late.error).toBe('ECONNREFUSED');
  });
});
