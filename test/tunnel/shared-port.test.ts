import { once } from 'node:events';
import { connect, type TLSSocket } from 'node:tls';
import { describe, expect, test, vi } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import { EnrolmentServer, type EnrolmentServerOptions, enrol } from '../../src/pki/index.ts';
import { MtlsTunnel, type TunnelListener } from '../../src/tunnel/index.ts';
import { ALPN_PROTOCOL } from '../../src/tunnel/messages.ts';
import { ca, cleanUp, cloud, dial, listen, next, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

/** A listener that shows the root as well, and serves enrolment. */
async function shared(
  options: Partial<EnrolmentServerOptions> = {},
  listenOptions: Parameters<typeof listen>[0] = {}
): Promise<{ listener: TunnelListener; enrolment: EnrolmentServer; endpoint: string }> {
  const enrolment = new EnrolmentServer({ authority: ca.authority, ...options });
  const listener = await listen({
    cert: `${cloud.cert}${cloud.ca}`,
    otherProtocols: { [EnrolmentServer.alpn]: (socket) => enrolment.handle(socket) },
    ...listenOptions,
  });
  cleanUp.push(() => enrolment.close());
  return { listener, enrolment, endpoint: `https://127.0.0.1:${listener.port}` };
}

async function client(port: number, protocols: string[], options = {}): Promise<TLSSocket> {
  const socket = connect({
    host: '127.0.0.1',
    port,
    ALPNProtocols: protocols,
    rejectUnauthorized: false,
    ...options,
  });
  socket.on('error', () => {});
  cleanUp.push(() => socket.destroy());
  await once(socket, 'secureConnect');
  return socket;
}

describe('a port for tunnels and enrolment', () => {
  test('lets a new site enrol, and then its tunnel in', async () => {
    const { listener, enrolment, endpoint } = await shared();
    const token = await ca.authority.createToken({ site: 'site-new', endpoints: [endpoint] });
    const { key, cert, ca: caPem } = await enrol(token);
    const tunnel = dial(listener.port, { key, cert, ca: caPem });
    await next(tunnel, 'up');
    expect(enrolment.counters).toMatchObject({ connections: 2, enrolled: 1 });
    expect(listener.counters).toMatchObject({ otherProtocols: 2, accepted: 1 });
    await vi.waitFor(() => expect(listener.handshakes).toBe(0));
    expect([...listener.counters.failed]).toEqual([]);
  });

  test('lets only peers with a certificate have a tunnel', async () => {
    const { listener } = await shared();
    const socket = await client(listener.port, [ALPN_PROTOCOL, EnrolmentServer.alpn]);
    expect(socket.alpnProtocol).toBe(ALPN_PROTOCOL);
    await once(socket.resume(), 'close');
    expect(listener.counters.failed.get('no-certificate')).toBe(1);
    expect(listener.counters.otherProtocols).toBe(0);
  });

  test.each([
    ['names no protocol', [], 'no-certificate'],
    ['names another one', ['h2'], 'ERR_SSL_NO_APPLICATION_PROTOCOL'],
  ])('serves no client that %s', async (_, protocols, code) => {
    const { listener, enrolment } = await shared();
    const socket = connect({
      host: '127.0.0.1',
      port: listener.port,
      ...(protocols.length === 0 ? {} : { ALPNProtocols: protocols }),
      rejectUnauthorized: false,
    });
    const closed = new Promise((resolve) => socket.on('close', resolve));
    socket.on('error', () => {}).resume();
    await closed;
    await vi.waitFor(() => expect([...listener.counters.failed]).toEqual([[code, 1]]));
    expect(enrolment.counters.connections).toBe(0);
  });

  test('gives a site with a certificate no more enrolment than one without', async () => {
    const { listener, enrolment } = await shared();
    const socket = await client(listener.port, [EnrolmentServer.alpn], siteA);
    socket.write('GET /other HTTP/1.1\r\nHost: x\r\n\r\n');
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 404 /);
    expect(enrolment.counters.refused).toBe(1);
    expect(listener.tunnels.size).toBe(0);
  });

  test('counts a connection with the handshakes until enrolment counts it', async () => {
    const { listener, enrolment } = await shared({ maxPending: 1 });
    const first = await client(listener.port, [EnrolmentServer.alpn]);
    await vi.waitFor(() => expect(enrolment.counters.connections).toBe(1));
    expect(listener.handshakes).toBe(0);
    const second = await client(listener.port, [EnrolmentServer.alpn]);
    await once(first.resume(), 'close');
    expect(enrolment.counters).toMatchObject({ connections: 2, evicted: 1 });
    expect(second.destroyed).toBe(false);
  });

  test('takes no more connections of an address than a port for tunnels alone', async () => {
    const { listener, enrolment } = await shared({}, { maxConnectionRate: 0.25 });
    await client(listener.port, [EnrolmentServer.alpn]);
    const socket = connect({ host: '127.0.0.1', port: listener.port, rejectUnauthorized: false });
    cleanUp.push(() => socket.destroy());
    await new Promise((resolve) => socket.once('error', resolve));
    expect(listener.counters.rateLimited).toBe(1);
    expect(enrolment.counters.connections).toBe(1);
  });

  test('has a deadline for a client that sends nothing', async () => {
    const { listener, enrolment } = await shared({ timeoutMs: 20 });
    const socket = await client(listener.port, [EnrolmentServer.alpn]);
    await once(socket.resume(), 'close');
    expect(enrolment.counters.timeouts).toBe(1);
  });

  test.each(['enrolment', 'listener'] as const)('is left when the %s is closed', async (closed) => {
    const all = await shared();
    const socket = await client(all.listener.port, [EnrolmentServer.alpn]);
    await vi.waitFor(() => expect(all.enrolment.counters.connections).toBe(1));
    await all[closed].close();
    await once(socket.resume(), 'close');
    if (closed === 'listener') return;
    const late = await client(all.listener.port, [EnrolmentServer.alpn]);
    await once(late.resume(), 'close');
    expect(all.enrolment.counters.connections).toBe(1);
  });

  test.each([
    ['the protocol of tunnels', { [ALPN_PROTOCOL]: () => {} }],
    ['an empty name', { '': () => {} }],
    ['a name that is too long', { ['x'.repeat(256)]: () => {} }],
    ['no function', { h2: true as never }],
  ])('is not opened with %s', async (_, otherProtocols) => {
    const options = { port: 0, ...cloud, otherProtocols };
    await expect(MtlsTunnel.listen(options)).rejects.toThrow(ApiMisuseError);
  });
});

test('a server that is closed while it opens its port does not keep it', async () => {
  const enrolment = new EnrolmentServer({ authority: ca.authority });
  const opening = enrolment.listen({ host: '127.0.0.1', port: 0 });
  const refused = expect(opening).rejects.toThrow('the enrolment server is closed');
  await enrolment.close();
  await refused;
});
