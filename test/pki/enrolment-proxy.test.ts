import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import { enrol } from '../../src/pki/index.ts';
import { ConnectProxy, scriptedProxy } from '../support/connect-proxy.ts';
import { closedPort, closers, HOST, refused, serve, withCertificate } from './enrolment-servers.ts';
import { SITE_A, scene } from './fixtures.ts';

async function openProxy(credentials?: string): Promise<ConnectProxy> {
  const proxy = await ConnectProxy.open(credentials);
  closers.push(() => proxy.close());
  return proxy;
}

describe('enrolment through a proxy', () => {
  test('obtains a certificate through two connections to the endpoint', async () => {
    const { authority } = await scene();
    const { port } = await serve(authority);
    const proxy = await openProxy('user:secret');
    proxy.names.set('cloud.test', { host: HOST, port });
    const endpoints = ['https://cloud.test:7440'];
    const token = await authority.createToken({ site: 'site-a', endpoints });
    const url = `http://user:secret@${HOST}:${proxy.port}`;
    expect((await enrol(token, { proxy: url })).identity).toEqual(SITE_A);
    expect(proxy.targets).toEqual(['cloud.test:7440', 'cloud.test:7440']);
    await vi.waitFor(() => expect(proxy.connections).toBe(0));
  });

  test('skips endpoints that the proxy cannot reach and one of another CA', async () => {
    const { authority } = await scene();
    const { endpoint } = await serve(authority);
    const foreign = await withCertificate((await scene()).authority, '');
    const proxy = await openProxy();
    const endpoints = [`https://${HOST}:${await closedPort()}`, foreign.endpoint, endpoint];
    const token = await authority.createToken({ site: 'site-a', endpoints });
    expect((await enrol(token, { proxy: proxy.url })).identity).toEqual(SITE_A);
    expect(foreign.received).toEqual([]);
  });

  test.each<[string, string]>([
    ['', 'CREDENTIALS_MISSING'],
    ['user:secret@', 'CREDENTIALS_REFUSED'],
  ])('reports that the proxy refuses the credentials "%s"', async (user, code) => {
    const { authority } = await scene();
    const { endpoint } = await serve(authority);
    const proxy = await openProxy('user:other');
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const enrolment = enrol(token, { proxy: `http://${user}${HOST}:${proxy.port}` });
    const error: Error = await enrolment.then(
      () => expect.unreachable(),
      (reason) => reason
    );
    expect(error).toMatchObject({ code: `ERR_PRESENCE_PROXY_${code}`, status: 407 });
    expect(error.message).toContain(`${endpoint}: proxy ${HOST}:${proxy.port}: `);
    expect(error.message).not.toContain('secret');
  });

  test('refuses an invalid proxy before anything is sent', async () => {
    const { authority } = await scene();
    const { endpoint, server } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    await expect(enrol(token, { proxy: 'socks5://x' })).rejects.toThrow(refused('CONFIG'));
    expect(server.counters.connections).toBe(0);
  });

  test('ends at its deadline if the proxy does not answer', async () => {
    const { authority } = await scene();
    const proxy = await scriptedProxy(() => {});
    closers.push(() => proxy.close());
    const token = await authority.createToken({ site: 'site-a', endpoints: ['https://x.test'] });
    const options = { proxy: `http://${HOST}:${proxy.port}`, timeoutMs: 50 };
    await expect(enrol(token, options)).rejects.toThrow('https://x.test: no answer within 50 ms');
    await proxy.idle();
  });
});

describe('a signal', () => {
  test.each(['a proxy', 'a server'])(
    'ends the enrolment while %s does not answer',
    async (silent) => {
      const { authority } = await scene();
      const sockets: net.Socket[] = [];
      const mute = net.createServer((socket) => sockets.push(socket)).listen(0, HOST);
      await once(mute, 'listening');
      closers.push(() => mute.close());
      const { port } = mute.address() as AddressInfo;
      const endpoints = [`https://${HOST}:${port}`, `https://${HOST}:${port}`];
      const token = await authority.createToken({ site: 'site-a', endpoints });
      const abort = new AbortController();
      const proxy = silent === 'a proxy' ? `http://${HOST}:${port}` : undefined;
      const enrolment = enrol(token, { proxy, signal: abort.signal });
      const ended = expect(enrolment).rejects.toThrow('enough');
      await once(mute, 'connection');
      abort.abort(new Error('enough'));
      await ended;
      expect(sockets).toHaveLength(1);
      await once(sockets[0]!.resume(), 'close');
    }
  );

  test('prevents the enrolment if it is already aborted', async () => {
    const { authority } = await scene();
    const { endpoint, server } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(enrol(token, { signal })).rejects.toThrow('enough');
    expect(server.counters.connections).toBe(0);
  });
});
