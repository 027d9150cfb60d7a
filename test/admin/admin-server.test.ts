import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  ADMIN_SERVER_DEFAULTS,
  AdminServer,
  type AdminServerOptions,
  type Handler,
  type Operation,
  type Route,
} from '../../src/admin/index.ts';
import type { Schema } from '../../src/base/schema.ts';
import { ApiMisuseError, ConfigError, EnvironmentError } from '../../src/errors.ts';

let directory: string;
let socketPath: string;
let server: AdminServer | undefined;
const sockets: Socket[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'admin-'));
  socketPath = join(directory, 'admin.sock');
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server?.close();
  server = undefined;
  rmSync(directory, { recursive: true, force: true });
});

interface AnyCall {
  readonly query: Readonly<Record<string, string>>;
  readonly body: unknown;
  readonly result: object;
}
type AnyHandler = Handler<AnyCall>;

const ANYTHING = {
  summary: 'A test.',
  role: 'admin',
  query: v.record(v.string(), v.string()) as Schema<Record<string, string>>,
  body: v.optional(v.unknown()) as Schema<unknown>,
  result: v.looseObject({}) as Schema<object>,
} as const;

/** Listens with handlers by method and path; each takes any query and body. */
async function listen(
  routes: Record<string, AnyHandler> = {},
  options: { maxBodyBytes?: number; timeoutMs?: number } = {}
): Promise<AdminServer> {
  const operations = Object.fromEntries(
    Object.keys(routes).map((route): [string, Operation<AnyCall>] => {
      const [method, path] = route.split(' ') as [Route['method'], Route['path']];
      return [route, { ...ANYTHING, method, path }];
    })
  );
  server = await AdminServer.listen({ socketPath, operations, handlers: routes, ...options });
  return server;
}

interface Answer {
  readonly status: number;
  readonly type: string | undefined;
  readonly body: unknown;
}

function send(method: string, path: string, body?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => {
        const { statusCode: status = 0, headers } = response;
        resolve({ status, type: headers['content-type'], body: JSON.parse(text) });
      });
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

async function open(text: string): Promise<Socket> {
  const socket = connect(socketPath);
  sockets.push(socket);
  await once(socket, 'connect');
  socket.write(text);
  return socket;
}

async function readAll(socket: Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text;
}

describe('the socket', () => {
  test('has the mode 0600, whatever the umask', async () => {
    const before = process.umask(0);
    try {
      await listen();
      expect(process.umask()).toBe(0);
    } finally {
      process.umask(before);
    }
    expect(lstatSync(socketPath).mode & 0o777).toBe(0o600);
  });

  test('is gone after close', async () => {
    const admin = await listen();
    await admin.close();
    expect(lstatSync(socketPath, { throwIfNoEntry: false })).toBeUndefined();
  });

  test('replaces one that a process left behind', async () => {
    const script = `require('net').createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(lstatSync(socketPath).isSocket()).toBe(true);
    await listen({ 'GET /': () => ({ ok: true }) });
    expect((await send('GET', '/')).body).toEqual({ ok: true });
  });

  test('is not replaced while another process listens', async () => {
    await listen({ 'GET /': () => ({ first: true }) });
    const second = AdminServer.listen({ socketPath, operations: {}, handlers: {} });
    await expect(second).rejects.toThrow(EnvironmentError);
    await expect(second).rejects.toThrow(
      `the admin socket ${socketPath} is in use by another process`
    );
    expect((await send('GET', '/')).body).toEqual({ first: true });
  });

  test('does not replace a file', async () => {
    writeFileSync(socketPath, 'precious');
    const listening = listen();
    await expect(listening).rejects.toThrow(EnvironmentError);
    await expect(listening).rejects.toThrow(`${socketPath} exists, and is not a socket`);
    expect(lstatSync(socketPath).size).toBe(8);
  });

  test('is refused in a directory that does not exist, with its name', async () => {
    const missing = join(directory, 'no');
    socketPath = join(missing, 'admin.sock');
    await expect(listen()).rejects.toThrow(
      new EnvironmentError(
        `cannot listen on the admin socket ${socketPath}: there is no directory ${missing}`
      )
    );
  });

  test('is refused if a file takes the place of the directory, with the path', async () => {
    writeFileSync(join(directory, 'file'), '');
    socketPath = join(directory, 'file', 'admin.sock');
    await expect(listen()).rejects.toThrow(EnvironmentError);
    await expect(listen()).rejects.toThrow(`cannot listen on the admin socket ${socketPath}: `);
  });

  test('may have a path of 107 bytes', async () => {
    socketPath = join(directory, 'x'.repeat(106 - directory.length));
    await listen({ 'GET /': () => ({ ok: true }) });
    expect((await send('GET', '/')).body).toEqual({ ok: true });
    expect(lstatSync(socketPath).isSocket()).toBe(true);
  });

  test.each<[string, () => string]>([
    ['of 108 bytes', () => join(directory, 'x'.repeat(107 - directory.length))],
    ['of no byte', () => ''],
    ['with a NUL', () => '\0admin'],
  ])('is refused at a path %s, with its length', async (_, path) => {
    socketPath = path();
    const length = Buffer.byteLength(socketPath);
    await expect(listen()).rejects.toThrow(
      new EnvironmentError(
        `the path of the admin socket must have 1 to 107 bytes, none of them 0: "${socketPath}" has ${length}`
      )
    );
  });
});

describe('a request', () => {
  test('is answered by the handler of its method and path', async () => {
    await listen({
      'GET /v1/whois': ({ query, body }) => ({ address: query.address, body }),
      'POST /v1/echo': async ({ body }) => ({ body }),
    });
    expect(await send('GET', '/v1/whois?address=10.0.0.5&x=%20')).toEqual({
      status: 200,
      type: 'application/json',
      body: { address: '10.0.0.5' },
    });
    expect((await send('POST', '/v1/echo', '{"a":[1]}')).body).toEqual({ body: { a: [1] } });
  });

  const failing = (error: unknown) => () => {
    throw error;
  };
  const circular: Record<string, unknown> = {};
  circular.self = circular;

  test.each<[string, AnyHandler, number, object]>([
    [
      'a fault of the operator',
      failing(new ConfigError('site', '"x" is not a site')),
      400,
      { code: 'ERR_PRESENCE_CONFIG', detail: 'site: "x" is not a site', path: 'site' },
    ],
    [
      'a rejection',
      () => Promise.reject(new ConfigError('', 'no')),
      400,
      { code: 'ERR_PRESENCE_CONFIG', detail: 'no' },
    ],
    ['another error', failing(new TypeError('x is undefined')), 500, { detail: 'x is undefined' }],
    ['something that is no error', failing('text'), 500, { detail: 'text' }],
    ['nothing at all', failing(undefined), 500, { detail: 'undefined' }],
    ['a result that is not JSON', () => circular, 500, { detail: expect.any(String) }],
    ['a bigint', () => ({ a: 1n }), 500, { detail: expect.any(String) }],
  ])(
    'gets a status and a message when the handler gives %s',
    async (_what, handler, status, body) => {
      await listen({ 'GET /': handler });
      expect(await send('GET', '/')).toMatchObject({ status, body });
      expect(await send('GET', '/')).toMatchObject({ status });
    }
  );

  test.each([
    ['GET', '/nowhere', 404, 'there is no /nowhere'],
    ['PUT', '/v1/status', 405, '/v1/status has no PUT, only GET'],
    ['GET', '/v1/status/', 404, 'there is no /v1/status/'],
    ['GET', '//', 404, 'there is no //'],
    ['GET', '/v1/../v1/status', 404, 'there is no /v1/../v1/status'],
    ['GET', '/v1/%2e%2e/status', 404, 'there is no /v1/%2e%2e/status'],
    ['GET', '/__proto__', 404, 'there is no /__proto__'],
    ['GET', '/%', 400, 'the path has "%", which is not percent-encoded text'],
  ])('without an operation is refused: %s %s', async (method, path, status, detail) => {
    await listen({ 'GET /v1/status': () => ({}) });
    const type = 'application/problem+json';
    expect(await send(method, path)).toMatchObject({ status, type, body: { status, detail } });
  });

  test('is refused with a body that is not JSON', async () => {
    await listen({ 'POST /': () => ({}) });
    expect(await send('POST', '/', '{"a":')).toMatchObject({
      status: 400,
      body: {
        code: 'ERR_PRESENCE_ADMIN_REQUEST',
        detail: expect.stringMatching(/^the body is not JSON: /),
      },
    });
  });

  test('is accepted with a body of the limit, and refused with one byte more', async () => {
    await listen(
      { 'POST /': ({ body }) => ({ length: (body as string).length }) },
      { maxBodyBytes: 100 }
    );
    expect((await send('POST', '/', JSON.stringify('x'.repeat(98)))).body).toEqual({ length: 98 });
    expect(await send('POST', '/', JSON.stringify('x'.repeat(99)))).toMatchObject({
      status: 413,
      body: { detail: 'the body is longer than 100 bytes' },
    });
  });

  test('is answered before its body is read completely, if that is far beyond the limit', async () => {
    await listen({ 'POST /': () => ({}) }, { maxBodyBytes: 1000 });
    const socket = await open('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
    socket.on('error', () => {});
    socket.write(`10000\r\n${'x'.repeat(0x10000)}\r\n`);
    const [first] = (await once(socket, 'data')) as [Buffer];
    expect(first.toString()).toMatch(/^HTTP\/1\.1 413 /);
    expect(first.toString()).toContain('the body is longer than 1000 bytes');
  });

  test.each([
    ['nothing', ''],
    ['half a header', 'POST / HT'],
    ['a header without its body', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n'],
    ['half a body', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"abc'],
  ])('times out when the client sends only %s', async (_what, text) => {
    let calls = 0;
    await listen({ 'POST /': () => ({ calls: ++calls }) }, { timeoutMs: 50 });
    const socket = await open(text);
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 408 /);
    expect((await send('POST', '/')).body).toEqual({ calls: 1 });
  });

  test('is handled to its end when the client disconnects, and the server continues', async () => {
    let finish!: () => void;
    const held = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let started!: () => void;
    const starting = new Promise<void>((resolve) => {
      started = resolve;
    });
    await listen({
      'GET /slow': async () => {
        started();
        await held;
        return { big: 'x'.repeat(100_000) };
      },
      'GET /': () => ({ ok: true }),
    });
    const socket = await open('GET /slow HTTP/1.1\r\nHost: a\r\n\r\n');
    await starting;
    socket.destroy();
    await once(socket, 'close');
    finish();
    expect((await send('GET', '/')).body).toEqual({ ok: true });
  });
});

describe('close', () => {
  test('waits for a request that was received completely', async () => {
    let finish!: () => void;
    const held = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let started!: () => void;
    const starting = new Promise<void>((resolve) => {
      started = resolve;
    });
    const admin = await listen({
      'POST /slow': async () => {
        started();
        await held;
        return { done: true };
      },
    });
    const answer = send('POST', '/slow', '{}');
    await starting;
    let isClosed = false;
    const closing = admin.close().then(() => {
      isClosed = true;
    });
    await expect(send('GET', '/')).rejects.toThrow();
    expect(isClosed).toBe(false);
    finish();
    expect((await answer).body).toEqual({ done: true });
    await closing;
  });

  test.each([
    ['sends nothing', ''],
    ['never sends its body', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n'],
  ])('does not wait for a client that %s', async (_what, text) => {
    const admin = await listen({ 'POST /': () => ({}) }, { timeoutMs: 600_000 });
    const socket = await open(text);
    await send('POST', '/');
    await admin.close();
    expect(await readAll(socket).catch(() => '')).toBe('');
  });

  test('does not wait for ever for a client that does not read its answer', async () => {
    let answered!: () => void;
    const answering = new Promise<void>((resolve) => {
      answered = resolve;
    });
    const admin = await listen(
      {
        'GET /big': () => {
          setImmediate(answered);
          return { big: 'x'.repeat(32 * 1024 * 1024) };
        },
      },
      { timeoutMs: 50 }
    );
    const socket = await open('GET /big HTTP/1.1\r\nHost: a\r\n\r\n');
    socket.pause();
    await answering;
    await admin.close();
  });

  test('may be called twice', async () => {
    const admin = await listen();
    await Promise.all([admin.close(), admin.close()]);
  });
});

describe('a client', () => {
  test('reads its whole answer while the server closes', async () => {
    const text = 'x'.repeat(5_000_000);
    const admin = await listen({ 'GET /long': () => ({ text }) });
    const client = await open('GET /long HTTP/1.1\r\nhost: admin\r\n\r\n');
    const [first] = (await once(client, 'data')) as [Buffer];
    client.pause();
    const closing = admin.close();
    expect(first.length + (await readAll(client)).length).toBeGreaterThan(text.length);
    await closing;
  });

  test('gets no answer to a second request on its connection, which is not processed', async () => {
    const handled: string[] = [];
    const admin = await listen({
      'GET /one': () => ({ one: handled.push('one') }),
      'DELETE /two': () => ({ two: handled.push('two') }),
    });
    const head = 'HTTP/1.1\r\nhost: admin\r\n\r\n';
    const answers = await readAll(await open(`GET /one ${head}DELETE /two ${head}`));
    expect(answers.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    expect(handled).toEqual(['one']);
    await admin.close();
  });

  test('that begins while the server closes is refused', async () => {
    let finish!: () => void;
    const held = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let started!: () => void;
    const starting = new Promise<void>((resolve) => {
      started = resolve;
    });
    const admin = await listen({
      'GET /slow': async () => {
        started();
        await held;
        return {};
      },
      'GET /': () => ({}),
    });
    const waiting = await open('');
    const slow = send('GET', '/slow');
    await starting;
    const closing = admin.close();
    waiting.write('GET / HTTP/1.1\r\nhost: admin\r\n\r\n');
    expect(await readAll(waiting)).toMatch(/^HTTP\/1\.1 503 .*the gateway closes/s);
    finish();
    expect((await slow).status).toBe(200);
    await closing;
  });

  test('may send a whole URL as the target', async () => {
    await listen({ 'GET /v1/x': ({ query }) => ({ ...query }) });
    expect((await send('GET', 'http://localhost/v1/x?a=b')).body).toEqual({ a: 'b' });
  });

  test('that does not read its answer is cut', async () => {
    const text = 'x'.repeat(16 * 1024 * 1024);
    let cut!: () => void;
    const isCut = new Promise<void>((resolve) => {
      cut = resolve;
    });
    const long: AnyHandler = ({ signal }) => {
      signal.addEventListener('abort', cut);
      return { text };
    };
    await listen({ 'GET /long': long }, { timeoutMs: 50 });
    const client = await open('GET /long HTTP/1.1\r\nhost: admin\r\n\r\n');
    client.pause();
    await isCut;
    // What has arrived is read before the end is seen.
    const all = await readAll(client).catch(() => '');
    expect(all.length).toBeLessThan(text.length);
  });
});

test('a fault of a handler is reported', async () => {
  const faults: unknown[] = [];
  const ignore = () => {};
  const error = (fields: object) => void faults.push(fields);
  const logger = { debug: ignore, info: ignore, warn: ignore, error };
  const fault = new TypeError('a fault');
  const operations = { fail: { ...ANYTHING, method: 'GET', path: '/' } as Operation<AnyCall> };
  const fail = () => {
    throw fault;
  };
  server = await AdminServer.listen({ socketPath, operations, handlers: { fail }, logger });
  expect((await send('GET', '/')).status).toBe(500);
  expect(faults).toEqual([{ event: 'admin_failed', err: fault }]);
});

describe('AdminServer', () => {
  test.each<[options: object | undefined, message: string]>([
    [undefined, 'options must be an object, not undefined'],
    [{ socketPath: 5 }, 'socketPath must be a text, not 5'],
    [{ operations: undefined }, 'operations must be an object, not undefined'],
    [{ handlers: undefined }, 'handlers must be an object, not undefined'],
    [{ operations: { a: {} }, handlers: { a: 5 } }, 'handlers.a must be a function, not 5'],
    [{ maxBodyBytes: -1 }, 'maxBodyBytes must be a whole number from 0 to 536870912, not -1'],
    [{ timeoutMs: 0 }, 'timeoutMs must be a whole number from 1 to 2147483647, not 0'],
  ])('refuses %j before it creates a socket', async (options, message) => {
    const whole = options && { socketPath, operations: {}, handlers: {}, ...options };
    const listening = AdminServer.listen(whole as unknown as AdminServerOptions);
    await expect(listening).rejects.toThrow(new ApiMisuseError(message));
    expect(lstatSync(socketPath, { throwIfNoEntry: false })).toBeUndefined();
  });

  test('exports its defaults', () => {
    expect(ADMIN_SERVER_DEFAULTS).toEqual({ maxBodyBytes: 67_108_864, timeoutMs: 10_000 });
  });

  test('closes once, also while a client does not read its answer', async () => {
    const text = 'x'.repeat(16 * 1024 * 1024);
    const admin = await listen({ 'GET /long': () => ({ text }) }, { timeoutMs: 500 });
    const client = await open('GET /long HTTP/1.1\r\nhost: admin\r\n\r\n');
    client.pause();
    await once(client, 'readable');
    const closing = admin.close();
    expect(admin.close()).toBe(closing);
    expect(admin[Symbol.asyncDispose]()).toBe(closing);
    await closing;
  });
});
