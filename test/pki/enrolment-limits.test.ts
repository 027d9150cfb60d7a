import { once } from 'node:events';
import net from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import { EnrolmentServer, type EnrolmentServerOptions, enrol } from '../../src/pki/index.ts';
import { closers, connect, HOST, post, refused, request, serve } from './enrolment-servers.ts';
import { newRequest, redemptionOf, SITE_A, scene } from './fixtures.ts';

/** An address of another host than the site's. */
const OTHER_ADDRESS = '127.0.0.2';

/** A connection that never begins its handshake. */
function halfOpen(port: number, localAddress = OTHER_ADDRESS): net.Socket {
  const socket = net.connect({ port, host: HOST, localAddress });
  socket.on('error', () => {});
  socket.resume();
  closers.push(() => socket.destroy());
  return socket;
}

const closed = (socket: net.Socket) =>
  socket.closed ? Promise.resolve() : once(socket, 'close').then(() => {});

/** A server with one place. The client that redeems a token there is evicted for another before `change` is called. */
async function fullServer(change: { readonly secret?: string } = {}) {
  const { authority } = await scene();
  const { server, port } = await serve(authority, { maxPending: 1 });
  const token = await authority.createToken({ site: 'site-a', endpoints: ['https://a'] });
  const real = authority.enrol.bind(authority);
  vi.spyOn(authority, 'enrol').mockImplementationOnce(async (redemption) => {
    await once(halfOpen(port), 'connect');
    await vi.waitFor(() => expect(server.counters.connections).toBe(2));
    return real({ ...redemption, ...change });
  });
  return { server, port, token };
}

describe('EnrolmentServer with unauthenticated peers', () => {
  test.each<[string, Partial<EnrolmentServerOptions>]>([
    ['as many as the rate allows', {}],
    ['all let in, so that they fill the place', { maxRate: 10_000 }],
  ])(
    'lets a site enrol next to 1,000 half-open connections of one address, %s',
    async (_, options) => {
      const { authority } = await scene();
      const { server, port, endpoint } = await serve(authority, options);
      const held = Array.from({ length: 1000 }, () => halfOpen(port));
      await vi.waitFor(() => expect(server.counters.connections).toBe(1000), { timeout: 10_000 });
      const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
      expect((await enrol(token)).identity).toEqual(SITE_A);
      const { rateLimited, evicted } = server.counters;
      const letIn = 1002 - rateLimited;
      expect(evicted).toBeGreaterThanOrEqual(letIn - 64 - 2);
      if (options.maxRate === undefined) expect(rateLimited).toBeGreaterThan(0);
      else expect(rateLimited).toBe(0);
      await vi.waitFor(() => {
        expect(held.filter((socket) => !socket.closed).length).toBeLessThanOrEqual(64);
      });
    }
  );

  test('closes the oldest connection of the address with most of them to admit another', async () => {
    const { authority } = await scene();
    const { server, port } = await serve(authority, { maxPending: 3 });
    const site = halfOpen(port, HOST);
    await once(site, 'connect');
    const first = halfOpen(port);
    await once(first, 'connect');
    const second = halfOpen(port);
    await once(second, 'connect');
    await vi.waitFor(() => expect(server.counters.connections).toBe(3));
    const fourth = halfOpen(port);
    await closed(first);
    expect(server.counters).toMatchObject({ connections: 4, evicted: 1, rateLimited: 0 });
    expect([site, second, fourth].map((socket) => socket.closed)).toEqual([false, false, false]);
  });

  test('does not count closed connections', async () => {
    const { authority } = await scene();
    const { server, port } = await serve(authority, { maxPending: 2 });
    const first = halfOpen(port);
    await once(first, 'connect');
    halfOpen(port).end();
    await vi.waitFor(() => expect(server.counters.handshakeFailures).toBe(1));
    const third = halfOpen(port);
    await vi.waitFor(() => expect(server.counters.connections).toBe(3));
    expect([first.closed, third.closed, server.counters.evicted]).toEqual([false, false, 0]);
  });

  test('closes connections above the rate of an address at once, and none of another address', async () => {
    const { authority } = await scene();
    // The rate is so low that the bucket does not refill during the test.
    const { server, port, endpoint } = await serve(authority, { maxRate: 1e-6, burst: 2 });
    const held = [halfOpen(port), halfOpen(port)];
    await vi.waitFor(() => expect(server.counters.connections).toBe(2));
    await closed(halfOpen(port));
    expect(server.counters).toMatchObject({
      connections: 3,
      rateLimited: 1,
      evicted: 0,
      handshakeFailures: 0,
    });
    expect(held.map((socket) => socket.closed)).toEqual([false, false]);
    await enrol(await authority.createToken({ site: 'site-a', endpoints: [endpoint] }));
  });

  test('does not evict a connection whose token is being redeemed', async () => {
    const { server, port, token } = await fullServer();
    expect((await post(port, JSON.stringify(redemptionOf(token)))).status).toBe(200);
    expect(server.counters).toMatchObject({ enrolled: 1, evicted: 0 });
  });

  test('closes such a connection without an answer if the token is refused', async () => {
    const { server, port, token } = await fullServer({ secret: 'x' });
    const socket = await connect(port);
    const body = JSON.stringify(redemptionOf(token));
    socket.write(
      `POST /v1/enrol HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    );
    const received: Buffer[] = [];
    socket.on('data', (data) => received.push(data));
    await closed(socket);
    expect(received).toEqual([]);
    expect(server.counters).toMatchObject({ refused: 1, evicted: 1 });
  });

  test('redeems a limited number of tokens at once, and answers the others 503', async () => {
    const { authority } = await scene();
    const { server, port } = await serve(authority, { maxRedemptions: 1 });
    const token = await authority.createToken({ site: 'site-a', endpoints: ['https://a'] });
    const real = authority.enrol.bind(authority);
    let other: Awaited<ReturnType<typeof post>> | undefined;
    vi.spyOn(authority, 'enrol').mockImplementationOnce(async (redemption) => {
      other = await post(port, JSON.stringify(redemptionOf(token)));
      return real(redemption);
    });
    expect((await post(port, JSON.stringify(redemptionOf(token)))).status).toBe(200);
    expect(other).toMatchObject({ status: 503, body: { code: 'ERR_PRESENCE_INTERNAL' } });
    expect(server.counters).toMatchObject({ enrolled: 1, busy: 1, refused: 0 });
    expect((await post(port, JSON.stringify(redemptionOf(token)))).status).toBe(403);
  });

  test.each([
    ['a content length', { 'content-length': '' }],
    ['no content length', { 'transfer-encoding': 'chunked' }],
  ])('accepts a body of exactly the limit and refuses one byte more, with %s', async (_, given) => {
    const { authority } = await scene();
    const token = await authority.createToken({ site: 'site-a', endpoints: ['https://a'] });
    const body = JSON.stringify(redemptionOf(token, newRequest().csrPem));
    const { server, port } = await serve(authority, { maxBodyBytes: body.length });
    const send = (text: string) => {
      const headers = 'content-length' in given ? { 'content-length': text.length } : given;
      return request(port, { method: 'POST', path: '/v1/enrol', headers }, text);
    };
    expect((await send(`${body} `)).status).toBe(413);
    expect((await send(body)).status).toBe(200);
    expect(server.counters).toMatchObject({ enrolled: 1, refused: 1 });
  });

  test('closes a request that arrives too slowly at its deadline', async () => {
    const { authority } = await scene();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    closers.push(() => vi.useRealTimers());
    const { server, port } = await serve(authority, { timeoutMs: 10_000 });
    const socket = await connect(port);
    socket.write('POST /v1/enrol HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n');
    for (let second = 1; second < 10; second++) {
      socket.write('{');
      await vi.advanceTimersByTimeAsync(1000);
    }
    expect([server.counters.timeouts, socket.closed]).toEqual([0, false]);
    await vi.advanceTimersByTimeAsync(1000);
    await closed(socket);
    expect(server.counters).toMatchObject({ timeouts: 1, refused: 0 });
  });

  test.each<[string, (port: number) => Promise<net.Socket>]>([
    ['never begins the handshake', async (port) => net.connect(port, HOST)],
    ['never sends a request', connect],
    [
      'never ends its request',
      async (port) => {
        const socket = await connect(port);
        socket.write('POST /v1/enrol HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{');
        return socket;
      },
    ],
  ])('closes a connection that %s', async (_, open) => {
    const { authority } = await scene();
    const { port, server } = await serve(authority, { timeoutMs: 1000 });
    const socket = await open(port);
    socket.on('error', () => {});
    socket.resume();
    await once(socket, 'close');
    await vi.waitFor(() => {
      expect(server.counters.timeouts + server.counters.handshakeFailures).toBeGreaterThan(0);
    });
  });

  test.each([
    { maxPending: 0 },
    { maxRate: 0 },
    { burst: 0.5 },
    { maxRedemptions: 0 },
    { maxBodyBytes: -1 },
    { timeoutMs: Number.NaN },
    { certificateLifetimeMs: Number.POSITIVE_INFINITY },
  ])('refuses the limit %o', async (limit) => {
    const { authority } = await scene();
    expect(() => new EnrolmentServer({ authority, ...limit })).toThrow(refused('API_MISUSE'));
  });
});
