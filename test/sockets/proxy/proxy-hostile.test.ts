/** Clients of the proxy that break the rules, are slow, or go away. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { describe, expect, test } from 'vitest';
import { socksReply } from '../../../src/sockets/proxy/socks.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { Random } from '../../support/random.ts';
import { settled, until } from '../worlds.ts';
import {
  ACCEPTED,
  CREDENTIALS,
  closeScenes,
  countsOf,
  credentials,
  httpRequest,
  LET_IN,
  METHODS,
  type RawClient,
  type Scene,
  scene,
  socksRequest,
  USER,
} from './proxy-kit.ts';

closeScenes();

const SOCKS = Buffer.concat([METHODS, CREDENTIALS, socksRequest('server.test', 7)]);
const HTTP = Buffer.from(httpRequest('server.test:7'));
const REQUESTS = [
  ['SOCKS5', SOCKS],
  ['CONNECT', HTTP],
] as const;

/** Checks that every connection has one outcome, and that nothing is left of those that have ended. */
async function expectAllDecided({ proxy, stack }: Scene, clock?: FakeClock): Promise<void> {
  const { accepted, overLimit, notAccepted, ...outcomes } = proxy.counters;
  const decided = (): number => Object.values(proxy.counters).reduce((a, b) => a + b, 0);
  await until(() => decided() === 2 * proxy.counters.accepted);
  expect([overLimit, notAccepted]).toEqual([0, 0]);
  expect(Object.values(outcomes).length).toBe(20);
  expect(accepted).toBeGreaterThan(0);
  await until(() => [...stack.tcp.connections()].length === 0);
  if (clock !== undefined) expect(clock.delays.filter((ms) => ms === 5000)).toEqual([]);
}

describe.each(REQUESTS)('%s', (_, request) => {
  test('that is cut off at any byte is given up, without a target', async () => {
    const clock = new FakeClock();
    const all = await scene({ auth: USER, maxPending: 1024 }, { clock });
    for (let cut = 0; cut < request.length; cut++) {
      const one = all.client();
      one.socket.end(request.subarray(0, cut));
      await one.rest();
    }
    expect(countsOf(all.proxy)).toEqual({ accepted: request.length, abandoned: request.length });
    expect(all.network.packets).toBe(0);
    await expectAllDecided(all, clock);
  });

  test('in two pieces, cut at any byte, is carried out', async () => {
    const all = await scene({ auth: USER, maxConnections: 2048 });
    for (let cut = 1; cut < request.length; cut++) {
      const one = all.client().send(request.subarray(0, cut));
      // The first piece has arrived for certain when another connection is served.
      await all.client().send(Buffer.of(9)).rest();
      one.send(request.subarray(cut), 'hello');
      await until(() => one.received.includes('hello'));
      one.socket.resetAndDestroy();
    }
    expect(all.proxy.counters.connected).toBe(request.length - 1);
    await expectAllDecided(all);
  });

  test('with any byte changed has an outcome, and never a wrong target', async () => {
    const seed = 20_264;
    console.info(`seed ${seed}`);
    const random = new Random(seed);
    const clock = new FakeClock();
    const all = await scene({ auth: USER, maxConnections: 4096 }, { clock });
    for (let at = 0; at < request.length; at++) {
      const bytes = Buffer.from(request);
      bytes[at] = bytes[at]! ^ random.between(1, 255);
      const one = all.client();
      one.socket.end(bytes);
      // Wrong credentials are answered after a second.
      while (!one.isGone) {
        clock.advance(100);
        await new Promise((resolve) => setImmediate(resolve));
      }
      one.socket.destroy();
    }
    expect(all.proxy.counters.accepted).toBe(request.length);
    clock.advance(10_000);
    await expectAllDecided(all, clock);
    for (const socket of all.accepted) expect(socket.localPort).toBe(7);
  });

  test('that is slow ends after 5 s', async () => {
    const clock = new FakeClock();
    const all = await scene({ auth: USER }, { clock });
    const [silent, dripping] = [all.client(), all.client()];
    await until(() => all.proxy.counters.accepted === 2);
    for (let i = 0; i < 49; i++) {
      if (i < request.length - 1) dripping.send(request.subarray(i, i + 1));
      await settled();
      clock.advance(100);
    }
    await settled();
    expect([silent.isGone, dripping.isGone, all.proxy.counters.tooSlow]).toEqual([false, false, 0]);
    clock.advance(100);
    expect(all.proxy.counters.tooSlow).toBe(2);
    expect((await silent.rest()).length).toBe(0);
    const answer = await dripping.rest();
    if (request === HTTP) expect(String(answer)).toMatch(/^HTTP\/1.1 408 Request Timeout\r\n/);
    else expect(answer).toEqual(LET_IN.subarray(0, answer.length));
    await expectAllDecided(all, clock);
  });

  test('whose client goes away while the target is connected ends that', async () => {
    const all = await scene();
    const { network, proxy, stack } = all;
    network.silent.add('10.2.0.1');
    const dialling = (): number => [...stack.tcp.connections()].length;
    for (const leave of [
      (client: RawClient) => client.socket.end(),
      (client: RawClient) => client.socket.destroy(),
      (client: RawClient) => client.socket.resetAndDestroy(),
      (client: RawClient) => client.socket.end('what nobody will read'),
    ]) {
      const one = all.client().send(request);
      await until(() => dialling() === 1);
      // The reply to the credentials has come, so that it cannot hide a reset.
      if (request === SOCKS) await one.take(4);
      leave(one);
      await until(() => dialling() === 0);
    }
    expect(countsOf(proxy)).toEqual({ accepted: 4, dialAbandoned: 4 });
  });

  test('is followed by data that waits, within bounds, for the target', async () => {
    const clock = new FakeClock();
    const all = await scene({ auth: USER }, { clock });
    all.network.silent.add('10.2.0.1');
    const data = Buffer.alloc(16 * 1024 * 1024, 'data');
    const one = all.client().send(request, data);
    await until(() => all.network.packets > 0);
    await settled();
    // The rest is in the buffers of the kernel, or has not left the client.
    expect(one.socket.writableLength).toBeGreaterThan(0);
    all.network.silent.clear();
    let received = one.received.length;
    one.socket.removeAllListeners('data').on('data', (chunk) => {
      received += chunk.length;
    });
    const replies = request === HTTP ? ACCEPTED.length : 4 + 10;
    while (received < replies + data.length) {
      clock.advance(10);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(received).toBe(replies + data.length);
    expect(countsOf(all.proxy)).toEqual({ accepted: 1, connected: 1 });
  });
});

describe('what is no request', () => {
  test.each<[string, Buffer | string, Buffer | RegExp, string]>([
    [
      'SOCKS4',
      Buffer.of(4, 1, 0, 80, 10, 2, 0, 1, 0),
      Buffer.of(0, 91, 0, 0, 0, 0, 0, 0),
      'unsupported',
    ],
    ['TLS', Buffer.of(0x16, 3, 1, 2, 0, 1), Buffer.alloc(0), 'unknownProtocol'],
    ['SOCKS6', Buffer.of(6, 1, 0), Buffer.alloc(0), 'unknownProtocol'],
    ['a zero', Buffer.of(0), Buffer.alloc(0), 'unknownProtocol'],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', /^HTTP\/1.1 400 /, 'malformed'],
    [
      'GET',
      'GET http://server.test:7/ HTTP/1.1\r\n\r\n',
      /^HTTP\/1.1 405 [\s\S]*Allow: CONNECT\r\n/,
      'unsupported',
    ],
    [
      'a body that is asked for',
      'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n',
      /^HTTP\/1.1 405 /,
      'unsupported',
    ],
    [
      'a long name',
      `CONNECT ${'a'.repeat(9000)}:80 HTTP/1.1\r\n\r\n`,
      /^HTTP\/1.1 431 /,
      'tooLarge',
    ],
    ['a long line', `CONNECT ${'a'.repeat(1_000_000)}`, /^HTTP\/1.1 431 /, 'tooLarge'],
    [
      'a long header',
      `CONNECT a.test:80 HTTP/1.1\r\n${'X: y\r\n'.repeat(9000)}`,
      /^HTTP\/1.1 431 /,
      'tooLarge',
    ],
    ['no port', httpRequest('server.test'), /^HTTP\/1.1 400 /, 'malformed'],
    [
      'BIND',
      Buffer.of(...METHODS, ...CREDENTIALS, 5, 2, 0, 1, 10, 2, 0, 1, 0, 7),
      Buffer.concat([LET_IN, socksReply(7)]),
      'unsupported',
    ],
    [
      'UDP ASSOCIATE',
      Buffer.of(...METHODS, ...CREDENTIALS, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0),
      Buffer.concat([LET_IN, socksReply(7)]),
      'unsupported',
    ],
    [
      'the longest name that there is',
      Buffer.concat([METHODS, CREDENTIALS, socksRequest('a'.repeat(255), 80)]),
      Buffer.concat([LET_IN, socksReply(4)]),
      'unknownName',
    ],
  ])('%s', async (_, bytes, reply, outcome) => {
    const all = await scene();
    const answer = await all.client().send(bytes).rest();
    if (reply instanceof RegExp) expect(String(answer)).toMatch(reply);
    else expect(answer).toEqual(reply);
    expect(countsOf(all.proxy)).toEqual({ accepted: 1, [outcome]: 1 });
    expect(all.network.packets).toBe(0);
  });

  test('two requests at once, of which the first is refused, have one answer', async () => {
    const all = await scene();
    const get = 'GET / HTTP/1.1\r\nHost: server.test\r\n\r\n';
    const answer = String(await all.client().send(get, HTTP, get).rest());
    expect(answer.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 405']);
    expect(countsOf(all.proxy)).toEqual({ accepted: 1, unsupported: 1 });
    expect(all.network.packets).toBe(0);
  });

  test('100,000 requests at once are one request for the parser', async () => {
    let requests = 0;
    const count = (): number => ++requests;
    subscribe('http.server.request.start', count);
    const all = await scene();
    const one = all.client().send('GET / HTTP/1.1\r\n\r\n'.repeat(100_000));
    await until(() => one.isGone);
    one.socket.end();
    // Now everything has been read.
    await one.closed();
    const answer = String(await one.rest());
    unsubscribe('http.server.request.start', count);
    expect(answer.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 405']);
    expect(requests).toBe(1);
  });

  test.each<[string, Buffer | string]>([
    ['of SOCKS4', Buffer.of(4)],
    ['of a method of SOCKS5', Buffer.of(5, 1, 0)],
    ['of the credentials of SOCKS5', Buffer.concat([METHODS, credentials('user', 'wrong')])],
    ['of the target of SOCKS5', Buffer.concat([METHODS, CREDENTIALS, socksRequest('a', 7)])],
    ['of a method of HTTP', 'GET / HTTP/1.1\r\n\r\n'],
    ['of HTTP without credentials', 'CONNECT a.test:80 HTTP/1.1\r\n\r\n'],
    ['of the credentials of HTTP', httpRequest('a.test:80', 'Basic Og==')],
    ['of the target of HTTP', httpRequest('a.test:80')],
    ['of what is no HTTP', 'CONNECT a.test:80 HTTP/9.9\r\n\r\n'],
  ])('a refusal %s is read whole, and the connection ends with the client', async (_, bytes) => {
    const clock = new FakeClock();
    const all = await scene({ auth: USER }, { clock });
    const one = all.client().send(bytes, Buffer.alloc(300_000));
    await until(() => one.received.length > 0 || all.proxy.counters.wrongCredentials > 0);
    await settled();
    clock.advance(1000);
    await until(() => one.isGone);
    one.socket.end();
    await one.closed();
    expect([one.error, one.received.length > 1]).toEqual([undefined, true]);
    await until(() => !clock.delays.includes(2000));
    expect(clock.delays).toEqual([]);
  });

  test('a client that does not read its refusal is closed after 2 s', async () => {
    const clock = new FakeClock();
    const all = await scene({ auth: USER }, { clock });
    const one = all.client();
    one.socket.pause();
    one.send('GET / HTTP/1.1\r\n\r\n');
    await until(() => all.proxy.counters.unsupported === 1);
    expect(clock.delays).toContain(2000);
    clock.advance(2000);
    expect(clock.delays).not.toContain(2000);
    one.socket.resume();
    expect(String(await one.rest())).toMatch(/^HTTP\/1.1 405 /);
  });
});

describe('too many', () => {
  test('incomplete requests: the oldest goes, and a complete one is not counted', async () => {
    const all = await scene({ auth: USER, maxPending: 2 });
    const tunnel = all.client().send(HTTP);
    await tunnel.take(ACCEPTED.length);
    all.network.silent.add('10.2.0.1');
    const before = all.network.packets;
    all.client().send(HTTP);
    await until(() => all.network.packets > before);
    const clients: RawClient[] = [];
    for (let i = 0; i < 4; i++) {
      clients.push(all.client().send(METHODS));
      await until(() => all.proxy.counters.accepted === i + 3);
    }
    await until(() => clients[0]!.isGone && clients[1]!.isGone);
    clients[2]!.send(CREDENTIALS, socksRequest('a.test', 7));
    clients[3]!.send(CREDENTIALS, socksRequest('a.test', 7));
    await until(() => all.proxy.counters.unknownName === 2);
    expect(countsOf(all.proxy)).toEqual({ accepted: 6, connected: 1, evicted: 2, unknownName: 2 });
  });

  test('connections: the newest goes, and there is room when one has ended', async () => {
    const all = await scene({ auth: USER, maxConnections: 2 });
    const [one, other] = [all.client().send(HTTP), all.client().send(HTTP)];
    await Promise.all([one, other].map((client) => client.take(ACCEPTED.length)));
    expect((await all.client().send(HTTP).rest()).length).toBe(0);
    one.socket.resetAndDestroy();
    await until(() => [...all.stack.tcp.connections()].length === 1);
    expect(String(await all.client().send(HTTP).take(ACCEPTED.length))).toBe(ACCEPTED);
    expect(countsOf(all.proxy)).toEqual({ accepted: 3, connected: 3, overLimit: 1 });
  });
});

test('refusals: those that linger are no connections, and the oldest goes', async () => {
  const clock = new FakeClock();
  const all = await scene({ auth: USER, maxConnections: 2 }, { clock });
  const refused: RawClient[] = [];
  for (let i = 0; i < 66; i++) {
    refused.push(all.client().send('GET / HTTP/1.1\r\n\r\n'));
    await until(() => refused[i]!.isEnded);
  }
  await until(() => clock.delays.filter((ms) => ms === 2000).length === 64);
  // They have not ended their direction: the first two see by what they send that nobody reads it.
  for (const one of refused.slice(0, 2)) {
    await until(() => {
      if (!one.isClosed) one.socket.write('more');
      return one.isClosed;
    });
  }
  for (let i = 0; i < 2; i++) await all.client().send(HTTP).take(ACCEPTED.length);
  expect((await all.client().send(HTTP).rest()).length).toBe(0);
  expect(countsOf(all.proxy)).toEqual({
    accepted: 68,
    unsupported: 66,
    connected: 2,
    overLimit: 1,
  });
});

test('wrong credentials: who leaves before the answer makes room for the next one', async () => {
  const clock = new FakeClock();
  const all = await scene({ auth: USER }, { clock });
  const wrong = Buffer.concat([METHODS, credentials('user', 'wrong password')]);
  for (let i = 1; i <= 17; i++) {
    const one = all.client().send(wrong);
    await until(() => all.proxy.counters.wrongCredentials === i);
    expect(one.isClosed).toBe(false);
    expect(clock.delays).toContain(1000);
    one.socket.resetAndDestroy();
    await until(() => clock.delays.length === 0);
  }
});

test('1,000 random clients leave nothing behind', async () => {
  const seed = 20_265;
  console.info(`seed ${seed}`);
  const random = new Random(seed);
  const clock = new FakeClock();
  const all = await scene({ auth: USER, maxConnections: 4096, maxPending: 16 }, { clock });
  for (let run = 0; run < 1_000; run++) {
    const one = all.client();
    const wrong = Buffer.concat([METHODS, credentials('user', 'wrong password')]);
    const bytes = Buffer.from(random.pick([SOCKS, HTTP, wrong, Buffer.from(random.bytes(30))]));
    if (random.chance(0.3)) bytes[random.below(bytes.length)] = random.below(256);
    const end = random.chance(0.5) ? bytes.length : random.below(bytes.length);
    one.send(bytes.subarray(0, end));
    const leaving = random.below(6);
    if (leaving === 0) one.socket.end();
    if (leaving === 1) one.socket.destroy();
    if (leaving === 2) one.socket.on('connect', () => one.socket.resetAndDestroy());
    if (random.chance(0.2)) await settled();
    if (random.chance(0.1)) clock.advance(random.below(2_000));
  }
  // Connections are accepted in their order, so this is the last one.
  const last = all.client().send(HTTP);
  await last.take(ACCEPTED.length);
  expect(all.proxy.counters.accepted).toBeGreaterThan(500);
  clock.advance(10_000);
  for (const { socket } of all.clients) socket.destroy();
  await expectAllDecided(all, clock);
});
