/** The HTTP server for monitoring: what it answers, and what it does to bad requests. */
import { connect } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import type { MetricFamily } from '../../src/observe/index.ts';
import { METRICS_SERVER_LIMITS, MetricsServer } from '../../src/observe/index.ts';
import type { Readiness } from '../../src/observe/readiness.ts';

const FAMILY: MetricFamily = {
  name: 'a',
  help: 'A.',
  type: 'gauge',
  samples: [{ labels: {}, value: 1 }],
};
const BODY = '# HELP a A.\n# TYPE a gauge\na 1\n';
const servers: MetricsServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function serve(
  metrics: () => Promise<readonly MetricFamily[]> = async () => [FAMILY],
  readiness: () => Readiness = () => ({ ready: true, reasons: [] })
): Promise<MetricsServer> {
  const listen = { host: '127.0.0.1', port: 0 };
  const server = await MetricsServer.listen({ listen, metrics, readiness });
  servers.push(server);
  return server;
}

const urlOf = ({ address }: MetricsServer, path: string) =>
  `http://127.0.0.1:${address.port}${path}`;

/** Sends bytes, and returns the whole answer when the server has closed the connection. */
async function send({ address }: MetricsServer, text: string): Promise<string> {
  const socket = connect(address.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(text);
  let answer = '';
  for await (const chunk of socket) answer += chunk;
  return answer;
}

test('answers GET and HEAD of the three paths', async () => {
  const server = await serve();
  const metrics = await fetch(urlOf(server, '/metrics?name=a'));
  expect(metrics.status).toBe(200);
  expect(metrics.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  expect(await metrics.text()).toBe(BODY);
  const head = await fetch(urlOf(server, '/metrics'), { method: 'HEAD' });
  expect(head.headers.get('content-length')).toBe(String(BODY.length));
  expect(await head.text()).toBe('');
  expect(await (await fetch(urlOf(server, '/healthz'))).text()).toBe('ok\n');
  expect(await (await fetch(urlOf(server, '/readyz'))).json()).toEqual({
    ready: true,
    reasons: [],
  });
});

test('is not ready with the reasons', async () => {
  const readiness: Readiness = {
    ready: false,
    reasons: [{ subject: 'store', message: 'the disk is full' }],
  };
  const server = await serve(undefined, () => readiness);
  const answer = await fetch(urlOf(server, '/readyz'));
  expect([answer.status, await answer.json()]).toEqual([503, readiness]);
  expect((await fetch(urlOf(server, '/healthz'))).status).toBe(200);
});

test.each([
  ['another path', 'GET /secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', 404],
  ['a path with dots', 'GET /metrics/../x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', 404],
  ['another method', 'DELETE /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', 405],
  ['a body', 'POST /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nxxxx', 405],
  [
    'a GET with a body',
    'GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nx',
    200,
  ],
  [
    'a whole URL',
    'GET http://a.test/healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
    200,
  ],
  ['no host', 'GET /metrics HTTP/1.1\r\n\r\n', 400],
  ['no HTTP', '\x16\x03\x01 hello\r\n\r\n', 400],
  ['an unknown version', 'GET /metrics HTTP/9.1\r\nHost: a\r\n\r\n', 400],
  ['long headers', `GET /metrics HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(9000)}\r\n\r\n`, 431],
])('gives %s the right status', async (_, request, status) => {
  const server = await serve();
  expect(await send(server, request)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  expect((await fetch(urlOf(server, '/metrics'))).status).toBe(200);
});

test('names the methods that it allows, and shows no control characters of a path', async () => {
  const server = await serve();
  const answer = await fetch(urlOf(server, '/healthz'), { method: 'PUT' });
  expect(answer.headers.get('allow')).toBe('GET, HEAD');
  expect(await (await fetch(urlOf(server, `/${'y'.repeat(500)}%0a`))).text()).toMatch(
    /^there is no \/y{99}, only \/metrics, \/healthz, \/readyz\n$/
  );
});

test('reads the metrics once for all who ask at the same time, and answers 500 if they cannot be read', async () => {
  let finish: (families: readonly MetricFamily[]) => void = () => {};
  const metrics = vi.fn(() => new Promise<readonly MetricFamily[]>((r) => (finish = r)));
  const readiness = vi.fn(() => ({ ready: true, reasons: [] }));
  const server = await serve(metrics, readiness);
  // The second request of each connection shows that the server has the first one.
  const requests = 'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /readyz HTTP/1.0\r\n\r\n';
  const answers = [1, 2, 3].map(() => send(server, requests));
  await vi.waitFor(() => expect(readiness).toHaveBeenCalledTimes(3));
  finish([FAMILY]);
  for (const answer of await Promise.all(answers)) expect(answer).toContain(BODY);
  expect(metrics).toHaveBeenCalledTimes(1);
  metrics.mockRejectedValue(new Error('the gateway is closed'));
  const failed = await fetch(urlOf(server, '/metrics'));
  expect([failed.status, await failed.text()]).toEqual([
    500,
    'the metrics cannot be read: the gateway is closed\n',
  ]);
});

test('closes connections beyond its limit, and all of them at the end', async () => {
  const server = await serve();
  const { maxConnections } = METRICS_SERVER_LIMITS;
  const sockets = Array.from({ length: maxConnections }, () =>
    connect(server.address.port, '127.0.0.1')
  );
  const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
  for (const socket of sockets) {
    socket.on('error', () => {});
    // An answer shows that the connection counts.
    socket.write('HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
    await new Promise((resolve) => socket.once('data', resolve));
  }
  expect(await send(server, 'GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n')).toBe('');
  await server.close();
  await Promise.all(closed);
});

test('says which port is in use', async () => {
  const { address } = await serve();
  const metrics = async () => [];
  const readiness = () => ({ ready: true, reasons: [] });
  await expect(MetricsServer.listen({ listen: address, metrics, readiness })).rejects.toThrow(
    `cannot listen for metrics on 127.0.0.1:${address.port}: `
  );
});
