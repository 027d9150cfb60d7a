/**
 * HTTP over presences: Node's own client and server, TLS, and the connector of undici.
 */
import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import type net from 'node:net';
import type { AddressInfo } from 'node:net';
import tls from 'node:tls';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import type { SocketStack } from '../../../src/sockets/stack.ts';
import {
  type ConnectorRequest,
  connector,
  httpAgent,
  httpsAgent,
} from '../../../src/sockets/stream/agents.ts';
import { createServer, type PresenceServer } from '../../../src/sockets/stream/server.ts';
import { connect, type PresenceSocket } from '../../../src/sockets/stream/socket.ts';
import { TcpState } from '../../../src/tcp/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { Forge, hasOpenssl, type Signer } from '../../support/openssl.ts';
import { StackNetwork } from '../stack-network.ts';
import { settled, until } from '../worlds.ts';

let stack: SocketStack;
let far: SocketStack;
let network: StackNetwork;

beforeEach(() => {
  network = new StackNetwork();
  stack = network.stack('10.1.0.1', '2001:db8:1::1');
  far = network.stack('10.2.0.1', '2001:db8:2::1');
});

/** Serves HTTP or HTTPS at a port of the far stack, with Node's own server. */
function serve(server: http.Server | https.Server, port: number): PresenceServer {
  return createServer(far, (socket) => server.emit('connection', socket)).listen(port);
}

const echo: http.RequestListener = (request, response) => {
  response.setHeader('from', String(request.socket.remoteAddress));
  request.pipe(response);
};

interface Answer {
  readonly status: number | undefined;
  readonly text: string;
  readonly request: http.ClientRequest;
  readonly headers: http.IncomingHttpHeaders;
}

/** Asks with a body, and resolves when the answer is read and the socket is free again. */
async function ask(request: http.ClientRequest, body = ''): Promise<Answer> {
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const part of response.setEncoding('utf8')) text += part;
  await settled();
  return { status: response.statusCode, text, request, headers: response.headers };
}

describe('httpAgent', () => {
  test('carries requests of http over the stack', async () => {
    serve(http.createServer(echo), 80);
    const agent = httpAgent(stack);
    const body = 'x'.repeat(300_000);
    const answer = await ask(
      http.request('http://server.test/path', { agent, method: 'POST' }),
      body
    );
    expect([answer.status, answer.headers.from]).toEqual([200, '10.1.0.1']);
    expect(answer.text).toBe(body);
    expect(network.packets).toBeGreaterThan(4);
  });

  test('keeps connections alive and uses them again', async () => {
    const server = serve(http.createServer(echo), 8080);
    let connections = 0;
    server.on('connection', () => connections++);
    const agent = httpAgent(stack, { keepAlive: true, maxSockets: 1 });
    const answers = await Promise.all(
      ['a', 'b', 'c'].map((body) =>
        ask(http.request('http://server.test:8080', { agent, method: 'POST' }), body)
      )
    );
    expect(answers.map(({ text }) => text)).toEqual(['a', 'b', 'c']);
    const { request } = await ask(http.get('http://server.test:8080', { agent }));
    expect(request.reusedSocket).toBe(true);
    expect(connections).toBe(1);
    agent.destroy();
    await settled();
    expect(stack.tcp.sizes.connections).toBe(0);
  });

  test('reports errors of the connection at the request', async () => {
    const request = http.get('http://server.test:81', { agent: httpAgent(stack) });
    const [error] = await once(request, 'error');
    expect(error).toMatchObject({ message: 'connect ECONNREFUSED 10.2.0.1:81' });
    const unknown = http.get('http://nova.test', { agent: httpAgent(stack) });
    expect((await once(unknown, 'error'))[0]).toMatchObject({ code: 'ENOTFOUND' });
  });

  test('times requests out', async () => {
    const accepted: PresenceSocket[] = [];
    createServer(far, (socket) => accepted.push(socket)).listen(80);
    const request = http.get('http://server.test', { agent: httpAgent(stack), timeout: 20 });
    await once(request, 'timeout');
    request.destroy();
    expect((await once(request, 'error'))[0].message).toBe('socket hang up');
    const [socket] = accepted;
    socket!.resume();
    await once(socket!, 'close');
  });
});

/** Asks a connector for a socket. */
const connected = (
  options: Parameters<typeof connector>[1],
  request: Partial<ConnectorRequest>
): Promise<net.Socket | tls.TLSSocket> =>
  new Promise((resolve, reject) => {
    const whole = { hostname: 'server.test', protocol: 'http:', port: '', ...request };
    connector(stack, options)(whole, (error, socket) => (error ? reject(error) : resolve(socket)));
  });

describe('connector', () => {
  test('connects for undici, at the port of the protocol if there is none', async () => {
    const server = createServer(far).listen(80);
    const accepted = once(server, 'connection');
    const socket = await connected({}, {});
    expect([socket.remoteAddress, socket.remotePort]).toEqual(['10.2.0.1', 80]);
    socket.end('x');
    const [far_] = (await accepted) as [PresenceSocket];
    expect(String((await once(far_, 'data'))[0])).toBe('x');
  });

  test('takes the brackets of an IPv6 address off', async () => {
    createServer(far).listen(8080);
    const socket = await connected({}, { hostname: '[2001:db8:2::1]', port: '8080' });
    expect(socket.remoteAddress).toBe('2001:db8:2::1');
  });

  test('reports errors once', async () => {
    await expect(connected({}, { port: '81' })).rejects.toMatchObject({
      message: 'connect ECONNREFUSED 10.2.0.1:81',
    });
  });

  test('gives up after its timeout', async () => {
    const clock = new FakeClock();
    const silent = new StackNetwork(clock).stack('10.1.0.1');
    const request = { hostname: 'server.test', protocol: 'http:', port: '80' };
    const failure = new Promise((resolve) =>
      connector(silent)(request, (...[error]) => resolve(error))
    );
    await settled();
    clock.advance(10_000);
    expect(await failure).toMatchObject({
      code: 'ETIMEDOUT',
      message: 'connect ETIMEDOUT server.test:80',
    });
  });
});

describe.skipIf(!hasOpenssl)('TLS', () => {
  const forge = new Forge();
  const names = 'subjectAltName=DNS:server.test,IP:10.2.0.1';
  const web: Signer = hasOpenssl ? forge.root('/CN=web', names) : { key: '', cert: '' };
  const ca = web.cert;
  afterAll(() => forge.close());

  test('httpsAgent carries requests of https, and resumes sessions', async () => {
    serve(https.createServer({ ...web }, echo), 443);
    const agent = httpsAgent(stack, { ca });
    const reused: boolean[] = [];
    for (let i = 0; i < 3; i++) {
      const request = https.request('https://server.test', { agent, method: 'POST' });
      request.on('socket', (socket) => {
        socket.once('secureConnect', () =>
          reused.push((socket as tls.TLSSocket).isSessionReused())
        );
      });
      expect((await ask(request, 'hello')).text).toBe('hello');
    }
    expect(reused).toEqual([false, true, true]);
  });

  test('httpsAgent refuses certificates of others, and of other names', async () => {
    serve(https.createServer({ ...web }, echo), 443);
    const untrusted = https.get('https://server.test', { agent: httpsAgent(stack) });
    const [error] = await once(untrusted, 'error');
    expect(error.code).toMatch(/SELF_SIGNED/);
    const other = https.get('https://both.test', { agent: httpsAgent(stack, { ca }) });
    expect((await once(other, 'error'))[0].code).toBe('ERR_TLS_CERT_ALTNAME_INVALID');
    await settled();
    expect(stack.tcp.sizes.connections).toBe(0);
  });

  test('connector offers ALPN, sends the name, and is connected when TLS is', async () => {
    const seen: unknown[] = [];
    const server = tls.createServer({ ...web, ALPNProtocols: ['h2', 'http/1.1'] }, (socket) => {
      seen.push([(socket as unknown as { servername: string }).servername, socket.alpnProtocol]);
      socket.pipe(socket);
    });
    createServer(far, (socket) => server.emit('connection', socket)).listen(443);
    const request = { protocol: 'https:' };
    const socket = (await connected({ tls: { ca } }, request)) as tls.TLSSocket;
    expect([socket.authorized, socket.alpnProtocol]).toEqual([true, 'http/1.1']);
    socket.write('x'.repeat(100_000));
    let received = 0;
    for await (const chunk of socket) {
      received += chunk.length;
      if (received === 100_000) break;
    }
    const h2 = await connected({ tls: { ca }, allowH2: true }, request);
    expect((h2 as tls.TLSSocket).alpnProtocol).toBe('h2');
    await until(() => seen.length === 2);
    h2.destroy();
    const byAddress = await connected({ tls: { ca } }, { ...request, hostname: '10.2.0.1' });
    byAddress.destroy();
    expect(seen.slice(0, 2)).toEqual([
      ['server.test', 'http/1.1'],
      ['server.test', 'h2'],
    ]);
    await settled();
    expect(stack.tcp.sizes.connections).toBe(0);
  });

  test('connector reports what TLS refuses, and gives up if TLS takes too long', async () => {
    createServer(far, (socket) => socket.end('no TLS')).listen(443);
    await expect(connected({}, { protocol: 'https:' })).rejects.toMatchObject({
      code: expect.stringMatching(/^(ERR_SSL|ECONNRESET|EPROTO)/),
    });
    createServer(far).listen(444);
    await expect(
      connected({ timeout: 20 }, { protocol: 'https:', port: '444' })
    ).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    await settled();
    for (const { state } of stack.tcp.connections()) expect(state).not.toBe(TcpState.Established);
  });
});

test('a connection that a server of Node has served is counted out', async () => {
  const served = serve(http.createServer(echo), 80);
  const socket = connect(stack, 80, 'server.test');
  const [accepted] = (await once(served, 'connection')) as [PresenceSocket];
  const errors: unknown[] = [];
  accepted.on('error', (error) => errors.push(error));
  socket.end('GET / HTTP/1.0\r\n\r\n').resume();
  const closed = once(served, 'close');
  await once(socket, 'close');
  served.close();
  await closed;
  expect(errors).toEqual([]);
});

test('a server of Node serves presences and the host alike', async () => {
  const server = http.createServer(echo);
  serve(server, 80);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const answers = await Promise.all([
    ask(http.request('http://server.test', { agent: httpAgent(stack), method: 'POST' }), 'a'),
    ask(http.request({ host: '127.0.0.1', port, method: 'POST', agent: new http.Agent() }), 'b'),
  ]);
  expect(answers.map(({ text, headers }) => [text, headers.from])).toEqual([
    ['a', '10.1.0.1'],
    ['b', '127.0.0.1'],
  ]);
  server.close();
});

describe('a server that closes idle connections', () => {
  test('costs a client with an agent nothing but a new connection', async () => {
    const server = http.createServer({ keepAliveTimeout: 1 }, echo);
    const served = serve(server, 80);
    const connections: PresenceSocket[] = [];
    served.on('connection', (socket: PresenceSocket) => connections.push(socket));
    const agent = httpAgent(stack, { keepAlive: true, maxSockets: 1 });
    const post = (): http.ClientRequest =>
      http.request('http://server.test', { agent, method: 'POST' });
    for (let i = 0; i < 3; i++) {
      const [socket] = (await Promise.all([
        new Promise((resolve) => post().on('socket', resolve).end('x')),
      ])) as [PresenceSocket];
      // The server ends the connection, and the agent learns of it.
      await once(socket, 'close');
      expect(Object.keys(agent.freeSockets)).toEqual([]);
    }
    expect(connections).toHaveLength(3);
    const { text, request } = await ask(post(), 'hello');
    expect([text, request.reusedSocket]).toEqual(['hello', false]);
    agent.destroy();
  });

  test('fails a request that is under way with ECONNRESET, and says that the socket was reused', async () => {
    const accepted: PresenceSocket[] = [];
    createServer(far, (socket) => {
      accepted.push(socket);
      socket.on('error', () => {});
      socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
    }).listen(80);
    const agent = httpAgent(stack, { keepAlive: true });
    const { text } = await ask(http.request('http://server.test', { agent }));
    expect(text).toBe('ok');
    const request = http.request('http://server.test', { agent });
    request.on('socket', () => accepted[0]!.destroy()).end();
    const [error] = await once(request, 'error');
    expect([error.code, request.reusedSocket]).toEqual(['ECONNRESET', true]);
    await settled();
    expect(stack.tcp.sizes.connections).toBe(0);
  });
});
