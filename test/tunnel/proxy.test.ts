import { describe, expect, test, vi } from 'vitest';
import { loadTcpControl } from '../../src/device/index.ts';
import { ConfigError } from '../../src/errors.ts';
import { CONNECTION_CHECK_MS } from '../../src/tunnel/connection-scaler.ts';
import { type CloseCause, CloseCode, MtlsTunnel } from '../../src/tunnel/index.ts';
import { readInto } from '../../src/tunnel/socket-reader.ts';
import { CLOUD, site } from '../support/certificates.ts';
import { ConnectProxy, scriptedProxy } from '../support/connect-proxy.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { BUSY_LENGTH, record, sendRound } from './packets.ts';
import { ca, cleanUp, dial, listen, next, pair, setUpTunnels, siteA } from './scene.ts';

vi.mock('../../src/tunnel/socket-reader.ts', async (original) => {
  const real = await original<typeof import('../../src/tunnel/socket-reader.ts')>();
  return { readInto: vi.fn(real.readInto) };
});

setUpTunnels();

async function openProxy(credentials?: string): Promise<ConnectProxy> {
  const proxy = await ConnectProxy.open(credentials);
  cleanUp.push(() => proxy.close());
  return proxy;
}

/** The first wait of a tunnel through a proxy at this port. */
async function causeOf(
  port: number,
  options: Parameters<typeof dial>[1] = {}
): Promise<CloseCause> {
  const tunnel = dial(1, { proxy: `http://user:secret@127.0.0.1:${port}`, ...options });
  const [{ cause }] = await next(tunnel, 'waiting');
  return cause;
}

describe('a tunnel through a proxy', () => {
  test('comes up, and reports the endpoint and the proxy', async () => {
    const proxy = await openProxy('user:secret');
    const listener = await listen();
    proxy.names.set('cloud.test', { host: '127.0.0.1', port: listener.port });
    const tunnel = dial(0, {
      endpoints: [{ host: 'cloud.test', port: 7443 }],
      proxy: `http://user:secret@127.0.0.1:${proxy.port}`,
    });
    const [info] = await next(tunnel, 'up');
    expect(info).toMatchObject({
      remoteAddress: '127.0.0.1',
      remotePort: proxy.port,
      proxiedEndpoint: { host: 'cloud.test', port: 7443 },
      peer: CLOUD,
    });
    expect(proxy.targets).toEqual(['cloud.test:7443']);
    expect([...listener.tunnels][0]!.info?.proxiedEndpoint).toBeUndefined();
  });

  test('opens its further connections through the proxy, to the same endpoint', async () => {
    const proxy = await openProxy();
    const clock = new FakeClock();
    const [dialled, accepted, listener] = await pair({ clock }, { clock, proxy: proxy.url });
    const received = record(accepted);
    sendRound(dialled, 3, 0, BUSY_LENGTH);
    clock.advance(CONNECTION_CHECK_MS);
    await vi.waitFor(() => expect([dialled.connections, accepted.connections]).toEqual([3, 3]));
    await vi.waitFor(() => expect(received.size).toBe(3));
    expect(proxy.targets).toEqual(Array(3).fill(`127.0.0.1:${listener.port}`));
  });

  test('renews its certificate through the proxy', async () => {
    const proxy = await openProxy();
    const [dialled, accepted] = await pair({}, { proxy: proxy.url });
    const renewed = next(accepted, 'renewed');
    await dialled.updateCredentials(await ca.issue(site('site-a')));
    await renewed;
    expect(proxy.targets).toHaveLength(2);
    expect(dialled.info?.proxiedEndpoint).toBeDefined();
  });

  test('is redirected through the proxy', async () => {
    const proxy = await openProxy();
    const there = await listen({ host: '127.0.0.2' });
    const here = await listen({
      authorize: () => ({
        code: CloseCode.Moved,
        reason: 'the site is held elsewhere',
        endpoint: { host: '127.0.0.2', port: there.port },
      }),
    });
    const tunnel = dial(here.port, { proxy: proxy.url });
    await next(tunnel, 'up');
    expect(proxy.targets).toEqual([`127.0.0.1:${here.port}`, `127.0.0.2:${there.port}`]);
    expect(tunnel.info?.proxiedEndpoint).toEqual({ host: '127.0.0.2', port: there.port });
  });

  test('comes back when the proxy does', async () => {
    const proxy = await openProxy();
    const proxies = [proxy];
    const tunnel = dial((await listen()).port, {
      proxy: () => proxies.at(-1)!.url,
      backoff: { minMs: 1, maxMs: 2 },
    });
    await next(tunnel, 'up');
    proxy.close();
    const [cause] = await next(tunnel, 'down');
    expect(cause.by).toBe('network');
    proxies.push(await openProxy());
    await next(tunnel, 'up');
  });

  test('asks a function for the proxy of each endpoint', async () => {
    const [listener, nobody] = [await listen(), await refusingTcpPort()];
    cleanUp.push(() => nobody.close());
    const proxy = await openProxy();
    const tunnel = dial(0, {
      endpoints: [nobody, listener].map(({ port }, priority) => ({
        host: '127.0.0.1',
        port,
        priority,
      })),
      proxy: (_host, port) => (port === listener.port ? undefined : proxy.url),
      backoff: { minMs: 1, maxMs: 2 },
    });
    await next(tunnel, 'up');
    expect(proxy.targets).toEqual([`127.0.0.1:${nobody.port}`]);
    expect(tunnel.info).toMatchObject({ remotePort: listener.port, proxiedEndpoint: undefined });
  });

  test('reads and paces the connection as one without a proxy', async () => {
    const proxy = await openProxy();
    const control = await loadTcpControl();
    const descriptors: number[] = [];
    const reads = vi.mocked(readInto);
    reads.mockClear();
    const [dialled, accepted] = await pair(
      {},
      {
        proxy: proxy.url,
        tcp: {
          limitUnsent: (socket, bytes) => {
            descriptors.push((socket as unknown as { _handle: { fd: number } })._handle.fd);
            control?.limitUnsent(socket, bytes);
          },
          sendProgress: () => undefined,
          boundRetransmission: () => false,
        },
      }
    );
    const received = record(accepted);
    for (let i = 0; i < 20; i++) {
      sendRound(dialled, 1, i, 50_000);
      await new Promise(setImmediate);
    }
    await vi.waitFor(() => expect([...received.values()][0]).toHaveLength(20));
    await vi.waitFor(() => expect(descriptors.length).toBeGreaterThan(0));
    if (process.platform === 'linux') expect(Math.min(...descriptors)).toBeGreaterThan(2);
    expect(reads.mock.results.map(({ value }) => value)).toEqual([true, true]);
  });
});

describe('a proxy that gives no connection', () => {
  test('refuses the credentials', async () => {
    const proxy = await openProxy('user:other');
    const cause = await causeOf(proxy.port);
    expect(cause).toMatchObject({
      by: 'network',
      code: CloseCode.ConnectionLost,
      errorCode: 'ERR_PRESENCE_PROXY_CREDENTIALS_REFUSED',
    });
    expect(cause.reason).toMatch(
      /^127\.0\.0\.1 port 1: proxy 127\.0\.0\.1:\d+: it refuses the credentials \(status 407\)$/
    );
  });

  test('cannot reach the endpoint', async () => {
    const proxy = await openProxy();
    expect(await causeOf(proxy.port)).toMatchObject({
      errorCode: 'ERR_PRESENCE_PROXY_ENDPOINT_UNREACHABLE',
    });
  });

  test('is silent until the time is over', async () => {
    const clock = new FakeClock();
    let asked = (): void => {};
    const request = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const proxy = await scriptedProxy(() => asked());
    cleanUp.push(() => proxy.close());
    const cause = causeOf(proxy.port, { clock });
    await request;
    clock.advance(10_000);
    expect(await cause).toMatchObject({ code: CloseCode.HandshakeTimeout, errorCode: 'ETIMEDOUT' });
    await proxy.idle();
  });

  test('is asked for nothing any more when the tunnel is closed, and leaves nothing', async () => {
    let asked = (): void => {};
    const request = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const proxy = await scriptedProxy(() => asked());
    cleanUp.push(() => proxy.close());
    const tunnel = dial(1, { proxy: `http://127.0.0.1:${proxy.port}` });
    await request;
    await tunnel.close();
    expect(tunnel.state).toBe('closed');
    await proxy.idle();
  });

  test('answers with plain text in place of TLS', async () => {
    const proxy = await scriptedProxy((socket) =>
      socket.write('HTTP/1.1 200 OK\r\n\r\n220 mail.example.org ESMTP\r\n')
    );
    cleanUp.push(() => proxy.close());
    expect((await causeOf(proxy.port)).errorCode).toMatch(/^ERR_SSL_/);
  });

  test.each(['https://proxy.test', 'proxy.test:3128', 'http://proxy.test/x'])(
    'is not %s',
    (proxy) => {
      const endpoints = [{ host: '127.0.0.1', port: 1 }];
      const options = { endpoints, expectedPeer: CLOUD, ...siteA, proxy };
      expect(() => MtlsTunnel.dial(options)).toThrow(ConfigError);
    }
  );

  test('is named wrongly by the function at a later attempt', async () => {
    let count = 0;
    const proxy = () => (count++ === 0 ? undefined : 'not-a-url');
    expect(await causeOf(0, { proxy })).toMatchObject({
      by: 'network',
      errorCode: 'ERR_PRESENCE_CONFIG',
    });
  });
});
