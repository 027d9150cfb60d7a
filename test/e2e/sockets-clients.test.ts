/**
 * HTTP clients and servers of this process over the sockets of an edge gateway, with plain Linux programs at the other
 * ends. What they transfer is counted in the tunnel, and at the TUN of the cloud gateway.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, type Agent as HttpAgent, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { Agent, type Dispatcher, Pool, request, fetch as undiciFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { EdgeGateway } from '../../src/gateway/index.ts';
import type { PresenceSocket } from '../../src/sockets/index.ts';
import { counter, SocketsScene, whatTheSceneMisses, ZONE } from './sockets-scene.ts';
import { testData } from './test-data.ts';

const skipReason = whatTheSceneMisses({ curl: 'curl' });
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

const DATA = testData();
const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const DATA_HASH = hashOf(DATA);
const HTTP = `http://web.${ZONE}:8080`;
const HTTPS = `https://web.${ZONE}:8443`;

/** Sends a request, with PUT and a body if there is one, and returns the body of the answer. */
type Ask = (url: string, body?: Buffer) => Promise<Buffer>;

interface HttpClient {
  readonly ask: Ask;
  close(): unknown;
}

describe.skipIf(isSkipped)(`clients over the sockets of an edge gateway${reason}`, () => {
  let scene: SocketsScene;
  let agent: EdgeGateway;

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    scene = await SocketsScene.start();
    agent = await scene.agent('site-a', { tunnelWaitMs: 600_000 });
  });
  afterAll(() => scene?.close());

  /** Checks that so many bytes go through the tunnel and the TUN, in each direction, while `work` is done. */
  async function seeAtTunnel<T>(up: number, down: number, work: () => Promise<T>): Promise<T> {
    const look = async (): Promise<number[]> => {
      const { toHosts, fromHosts } = await scene.tunBytes();
      const [sent, received] = ['tunnel.sentBytes', 'tunnel.receivedBytes'].map((name) =>
        counter(agent, name)
      );
      return [toHosts, sent!, fromHosts, received!];
    };
    const before = await look();
    const result = await work();
    const seen = (await look()).map((count, i) => count - before[i]!);
    for (const [i, least] of [up, up, down, down].entries()) {
      expect(seen[i], `counts of ${i < 2 ? 'sent' : 'received'} bytes: ${seen}`).toBeGreaterThan(
        least
      );
    }
    return result;
  }

  async function ofNode(isTls: boolean): Promise<HttpClient> {
    const { sockets } = agent;
    const options = { keepAlive: true, maxSockets: 1 };
    const agentOfNode: HttpAgent = isTls
      ? sockets.httpsAgent({ ...options, ca: scene.certificate })
      : sockets.httpAgent(options);
    const ask: Ask = (url, body) =>
      new Promise((resolve, reject) => {
        const send = isTls ? httpsRequest : httpRequest;
        const method = body === undefined ? 'GET' : 'PUT';
        send(url, { method, agent: agentOfNode }, (response) => {
          buffer(response).then(resolve, reject);
        })
          .on('error', reject)
          .end(body);
      });
    return { ask, close: () => agentOfNode.destroy() };
  }

  /** undici would open a second connection for a request that comes in the same turn as the answer before it. */
  function dispatcher(connections = 1): Agent {
    const tls = { ca: scene.certificate };
    return new Agent({ connections, connect: agent.sockets.connector({ tls }) });
  }

  async function ofUndici(): Promise<HttpClient> {
    const to = dispatcher();
    const ask: Ask = async (url, body) => {
      const method = body === undefined ? 'GET' : 'PUT';
      const answer = await request(url, { method, dispatcher: to, ...(body && { body }) });
      return Buffer.from(await answer.body.arrayBuffer());
    };
    return { ask, close: () => to.close() };
  }

  async function byFetch(fetch: unknown): Promise<HttpClient> {
    const to = dispatcher();
    const ask: Ask = async (url, body) => {
      const method = body === undefined ? 'GET' : 'PUT';
      const options = { method, dispatcher: to, ...(body && { body }) };
      const answer = await (fetch as Fetch)(url, options);
      return Buffer.from(await answer.arrayBuffer());
    };
    return { ask, close: () => to.close() };
  }

  const clients: [name: string, url: string, open: () => Promise<HttpClient>][] = [
    ['http of Node', HTTP, () => ofNode(false)],
    ['https of Node', HTTPS, () => ofNode(true)],
    ['undici', HTTP, ofUndici],
    ['undici with TLS', HTTPS, ofUndici],
    ['fetch of undici', HTTP, () => byFetch(undiciFetch)],
    ['fetch of Node', HTTP, () => byFetch(fetch)],
    ['fetch of Node with TLS', HTTPS, () => byFetch(fetch)],
  ];

  test.each(clients)('%s moves megabytes both ways over one connection', async (_, url, open) => {
    const opened = counter(agent, 'sockets.tcp.opened');
    const { ask, close } = await open();
    await seeAtTunnel(DATA.length, DATA.length, async () => {
      const before = String(await ask(url));
      expect(hashOf(await ask(`${url}/data`))).toBe(DATA_HASH);
      expect(String(await ask(url, DATA))).toBe(DATA_HASH);
      expect(String(await ask(url))).toBe(before);
    });
    await close();
    expect(counter(agent, 'sockets.tcp.opened')).toBe(opened + 1);
  });

  test('undici pipelines requests on one connection', async () => {
    const pool = new Pool(HTTP, {
      connections: 1,
      pipelining: 10,
      connect: agent.sockets.connector(),
    });
    const get = async (path: string): Promise<Buffer> => {
      const { body } = await pool.request({ path, method: 'GET' });
      return Buffer.from(await body.arrayBuffer());
    };
    const paths = Array.from({ length: 40 }, (_, i) => (i === 20 ? '/data' : '/'));
    const answers = await seeAtTunnel(0, DATA.length, () => Promise.all(paths.map(get)));
    const [data] = answers.splice(20, 1);
    expect(hashOf(data!)).toBe(DATA_HASH);
    expect(new Set(answers.map(String)).size).toBe(1);
    await pool.close();
  });

  test('many clients at once have connections of their own', async () => {
    const to = dispatcher(40);
    const ports = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const { body } = await request(HTTP, { dispatcher: to });
        return body.text();
      })
    );
    expect(new Set(ports).size).toBe(40);
    await to.close();
  });

  test('a stream is piped to a service, which answers behind its end', async () => {
    const socket = agent.sockets.connect({ host: 'web', port: 7000, allowHalfOpen: true });
    const answer = text(socket);
    await seeAtTunnel(DATA.length, 0, async () => {
      await pipeline(Readable.from(pieces(DATA)), socket);
      expect(await answer).toBe(DATA_HASH);
    });
  });

  test('an HTTP server of this process serves a client in the network of the cloud', async () => {
    const http = createServer((incoming, response) => {
      if (incoming.method === 'PUT') buffer(incoming).then((body) => response.end(hashOf(body)));
      else response.end(DATA);
    });
    const server = agent.sockets.createServer((socket) => http.emit('connection', socket));
    server.listen(6080);
    await once(server, 'listening');
    const file = join(scene.directory, 'data');
    writeFileSync(file, DATA);
    const url = `http://agent.${ZONE}:6080/`;
    await seeAtTunnel(DATA.length, DATA.length, async () => {
      // Both requests go over one connection.
      const fetched = join(scene.directory, 'fetched');
      const curl = ['curl', '-sS', '-o', fetched, url, '--next', '-sS', '-T', file, url];
      expect(await scene.service.get([...curl, '-w', ' %{num_connects}'])).toBe(`${DATA_HASH} 0`);
      expect(await scene.service.get(['sha256sum', fetched])).toContain(DATA_HASH);
    });
    server.close();
    http.closeAllConnections();
  });

  describe('what the site is no longer allowed', () => {
    let other: EdgeGateway;
    beforeAll(async () => {
      other = await scene.agent('site-c', { tunnelWaitMs: 600_000 });
    });

    async function expose(): Promise<void> {
      await scene.callAdmin('PUT', '/v1/exposures/site-c/web', {});
      await vi.waitFor(() => expect(other.lookup('web')).toHaveLength(1));
    }

    test('ends with the exposure: its connections are reset in the middle of a transfer', async () => {
      await expose();
      const socket = await connected(other, 'web');
      const failure = failureOf(socket);
      const echoed = once(socket, 'data');
      socket.write(DATA);
      await echoed;
      await scene.callAdmin('DELETE', '/v1/exposures/site-c/web');
      expect(await failure).toMatchObject({
        code: 'ECONNRESET',
        cause: { message: expect.stringMatching(/withdrawn/) },
      });
      const next = other.sockets.connect({ host: 'web', port: 7001 });
      expect(await failureOf(next)).toMatchObject({ code: 'ENOTFOUND' });
    });

    test('ends with the revocation: all is reset, and new connections fail at once', async () => {
      await expose();
      const socket = await connected(other, 'web');
      const to = new Agent({ connect: other.sockets.connector() });
      const { body } = await request(`${HTTP}/data`, { dispatcher: to });
      const failures = [failureOf(socket), body.arrayBuffer().catch((error: Error) => error)];
      await scene.callAdmin('POST', '/v1/revocations', { site: 'site-c' });
      for (const failure of failures) {
        expect(await failure).toMatchObject({
          code: 'ECONNRESET',
          cause: { message: expect.stringMatching(/revoked/) },
        });
      }
      // It would wait for ten minutes.
      expect(await failureOf(other.sockets.connect({ host: 'web', port: 7001 }))).toMatchObject({
        code: 'ENETDOWN',
        cause: { message: expect.stringMatching(/revoked/) },
      });
      const [error] = await Promise.allSettled([request(HTTP, { dispatcher: to })]);
      expect(error).toMatchObject({ reason: { code: 'ENETDOWN' } });
      await to.destroy();
    });
  });
});

type Fetch = (
  url: string,
  options: { method: string; body?: Buffer; dispatcher: Dispatcher }
) => Promise<Response>;

function* pieces(data: Buffer): Generator<Buffer> {
  for (let at = 0; at < data.length; at += 100_000) yield data.subarray(at, at + 100_000);
}

/** Connects to the echo service of a host, and waits until it has answered. */
async function connected(edge: EdgeGateway, host: string): Promise<PresenceSocket> {
  const socket = edge.sockets.connect({ host, port: 7001, allowHalfOpen: true });
  socket.write('?');
  await once(socket, 'data');
  return socket;
}

function failureOf(socket: PresenceSocket): Promise<NodeJS.ErrnoException> {
  return new Promise((resolve) => socket.once('error', resolve));
}
