import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { parseProxy } from '../../src/base/proxy.ts';
import { connectThrough } from '../../src/base/proxy-connect.ts';
import { ApiMisuseError, type ProxyError } from '../../src/errors.ts';
import { scriptedProxy } from '../support/connect-proxy.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';

const cleanUp: (() => unknown)[] = [];
afterEach(() => {
  for (const step of cleanUp.splice(0)) step();
});

const ENDPOINT = { host: 'cloud.test', port: 7443 };

function open(
  port: number,
  { user = '', endpoint = ENDPOINT } = {}
): { readonly socket: Socket; readonly outcome: Promise<Socket | ProxyError> } {
  const proxy = parseProxy(`http://${user}127.0.0.1:${port}`);
  let socket!: Socket;
  const outcome = new Promise<Socket | ProxyError>((resolve) => {
    socket = connectThrough(proxy, endpoint, { onOpen: resolve, onFailed: resolve });
  });
  cleanUp.push(() => socket.destroy());
  return { socket, outcome };
}

async function through(
  answer: (socket: Socket, request: string) => void,
  options: Parameters<typeof open>[1] = {}
): Promise<{
  readonly socket: Socket;
  readonly outcome: Promise<Socket | ProxyError>;
  readonly idle: () => Promise<void>;
}> {
  const proxy = await scriptedProxy(answer);
  cleanUp.push(() => proxy.close());
  return { ...open(proxy.port, options), idle: proxy.idle };
}

function bytesOf(socket: Socket, count: number): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    socket.on('data', (piece) => {
      text += piece.toString('latin1');
      if (text.length >= count) resolve(text);
    });
    socket.resume();
  });
}

const OK = 'HTTP/1.1 200 Connection established\r\n\r\n';

describe('connectThrough', () => {
  test.each([
    ['cloud.test', 'cloud.test:7443'],
    ['192.0.2.1', '192.0.2.1:7443'],
    ['2001:db8::1', '[2001:db8::1]:7443'],
  ])('asks for %s', async (host, authority) => {
    let asked = '';
    const { outcome } = await through(
      (socket, request) => {
        asked = request;
        socket.write(OK);
      },
      { user: 'us%40er:secret@', endpoint: { host, port: 7443 } }
    );
    await outcome;
    const credentials = Buffer.from('us@er:secret').toString('base64');
    expect(asked).toBe(
      `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nProxy-Authorization: Basic ${credentials}\r\n\r\n`
    );
  });

  test.each(['a b', 'a\r\nX: y', '', 'fe80::1%eth0', 'a/b', 'a@b'])(
    'asks for no host %j',
    (host) => {
      const proxy = parseProxy('http://127.0.0.1:9');
      const outcome = { onOpen: () => {}, onFailed: () => {} };
      expect(() => connectThrough(proxy, { host, port: 1 }, outcome)).toThrow(ApiMisuseError);
    }
  );

  test.each<[string, string]>([
    ['200', OK],
    ['HTTP/1.0 and fields', 'HTTP/1.0 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n'],
    ['another status of success', 'HTTP/1.1 204\r\n\r\n'],
    ['interim answers', `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n${OK}`],
  ])('takes %s as a connection, and what follows as its bytes', async (_, answer) => {
    const { outcome } = await through((socket) => socket.write(`${answer}early`));
    const socket = (await outcome) as Socket;
    expect(await bytesOf(socket, 5)).toBe('early');
  });

  test('takes an answer that comes byte by byte', async () => {
    const { outcome } = await through(async (socket) => {
      for (const byte of `${OK}early`) {
        socket.write(byte);
        await new Promise(setImmediate);
      }
    });
    expect(await bytesOf((await outcome) as Socket, 5)).toBe('early');
  });

  test('loses none of many bytes behind the answer', async () => {
    const many = 'x'.repeat(1_000_000);
    const { outcome } = await through((socket) => socket.write(OK + many));
    expect(await bytesOf((await outcome) as Socket, many.length)).toBe(many);
  });

  test.each<[string, string]>([
    ['other text', 'SSH-2.0-OpenSSH\r\n'],
    ['the beginning of other text', 'HTTX'],
    ['HTTP/2', 'HTTP/2 200 OK\r\n\r\n'],
    ['no status', 'HTTP/1.1 OK\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a status below 100', 'HTTP/1.1 099 OK\r\n\r\n'],
    ['a status without a space', 'HTTP/1.1 200OK\r\n\r\n'],
    ['another protocol', 'HTTP/1.1 101 Switching Protocols\r\n\r\n'],
    ['a line that is no field', 'HTTP/1.1 200 OK\r\nno field\r\n\r\n'],
    ['a folded line', 'HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n'],
    ['a control character', 'HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n'],
    ['a bare line feed', 'HTTP/1.1 200 OK\nA: b\r\n\r\n'],
    ['garbage behind an interim answer', 'HTTP/1.1 100 Continue\r\n\r\ngarbage'],
    ['a header section without end', `HTTP/1.1 200 OK\r\nA: ${'b'.repeat(20_000)}`],
    ['a long header section', `HTTP/1.1 200 OK\r\nA: ${'b'.repeat(20_000)}\r\n\r\n`],
    ['interim answers without end', 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(1_000)],
  ])('refuses %s', async (_, answer) => {
    const { outcome, idle } = await through((socket) => socket.write(answer));
    expect(await outcome).toMatchObject({ code: 'ERR_PRESENCE_PROXY_PROTOCOL', fault: 'protocol' });
    await idle();
  });

  test.each<[string, string, string, string]>([
    ['407', '', 'credentials-missing', 'it asks for credentials (status 407)'],
    ['407', 'user:secret@', 'credentials-refused', 'it refuses the credentials (status 407)'],
    ['401', 'user:secret@', 'credentials-refused', 'it refuses the credentials (status 401)'],
    ['401', '', 'refused', 'it refuses the endpoint (status 401)'],
    ['403', 'user:secret@', 'refused', 'it refuses the endpoint (status 403)'],
    ['302', '', 'refused', 'it refuses the endpoint (status 302)'],
    ['502', '', 'endpoint-unreachable', 'it cannot reach the endpoint (status 502)'],
  ])('says what status %s means with the credentials %j', async (status, user, fault, reason) => {
    const { outcome, idle } = await through(
      (socket) => socket.write(`HTTP/1.1 ${status} Reason\r\nContent-Length: 99\r\n\r\nbody`),
      { user }
    );
    const error = (await outcome) as ProxyError;
    expect(error).toMatchObject({ fault, status: Number(status) });
    expect(error.message).toMatch(/^proxy 127\.0\.0\.1:\d+: /);
    expect(error.message.endsWith(reason)).toBe(true);
    expect(error.message).not.toContain('secret');
    await idle();
  });

  test('names the scheme of credentials that is wanted if it is not Basic', async () => {
    const { outcome } = await through((socket) =>
      socket.write(
        'HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate:NTLM\r\n\r\n'
      )
    );
    expect(((await outcome) as ProxyError).message).toMatch(
      /it asks for credentials \(status 407\) of the scheme Negotiate or NTLM; only Basic is known here$/
    );
  });

  test('says that the proxy cannot be reached', async () => {
    const nobody = await refusingTcpPort();
    cleanUp.push(() => nobody.close());
    const error = (await open(nobody.port).outcome) as ProxyError;
    expect(error).toMatchObject({ fault: 'unreachable', cause: { code: 'ECONNREFUSED' } });
  });

  test.each<[string, (socket: Socket) => void]>([
    ['ends', (socket) => socket.end()],
    ['ends within the answer', (socket) => socket.end('HTTP/1.1 200 OK\r\n')],
    ['resets', (socket) => socket.resetAndDestroy()],
  ])('says that the proxy %s the connection', async (_, answer) => {
    const { outcome, idle } = await through(answer);
    expect(await outcome).toMatchObject({ fault: 'unreachable', status: undefined });
    await idle();
  });

  test('calls nothing any more, and leaves nothing, when its socket is destroyed', async () => {
    let asked = (): void => {};
    const request = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const { socket, outcome, idle } = await through(() => asked());
    await request;
    let isCalled = false;
    void outcome.then(() => {
      isCalled = true;
    });
    socket.destroy();
    await Promise.all([once(socket, 'close'), idle()]);
    await new Promise(setImmediate);
    expect(isCalled).toBe(false);
  });

  test('can be given up before the proxy has accepted', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const { socket } = open(port);
    socket.destroy();
    await once(socket, 'close');
    server.close();
    await once(server, 'close');
  });
});
