/** Real clients of the proxy: curl and undici, to an HTTP server behind another stack. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fetch, ProxyAgent } from 'undici';
import { afterAll, describe, expect, test } from 'vitest';
import { titled } from '../../support/titled.ts';
import { SITE } from '../stack-network.ts';
import { basic, closeScenes, countsOf, type Scene, scene, USER } from './proxy-kit.ts';

closeScenes();

const directory = mkdtempSync(join(tmpdir(), 'proxy-'));
afterAll(() => rmSync(directory, { recursive: true }));

const BODY = 'x'.repeat(300_000);

/** A scene whose far stack has an HTTP server at port 80, which says who has called. */
async function served(...args: Parameters<typeof scene>): Promise<Scene> {
  const made = await scene(...args);
  const web = http.createServer((request, response) => {
    response.setHeader('from', request.socket.remoteAddress!);
    response.end(request.url === '/long' ? BODY : `${request.headers.host}${request.url}\n`);
  });
  made.far.createServer((socket) => web.emit('connection', socket)).listen(80);
  return made;
}

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function curl(...args: string[]): Promise<Outcome> {
  // No proxy of the environment, and no configuration of the user.
  const env = { PATH: process.env.PATH };
  const all = ['--disable', '--silent', '--show-error', '--max-time', '60', ...args];
  return new Promise((resolve) => {
    execFile('curl', all, { env }, (error, out, err) => {
      resolve({ code: error === null ? 0 : Number(error.code), out, err });
    });
  });
}

const hasCurl = spawnSync('curl', ['--version']).status === 0;
const skipReason = hasCurl ? undefined : 'the Debian package curl is missing';

describe.skipIf(skipReason)(titled('curl', skipReason), () => {
  test('goes by SOCKS5 to a name that only the zone has', async () => {
    const { proxy, port, accepted } = await served();
    const user = `${USER.username}:${USER.password}`;
    const options = ['--socks5-hostname', `127.0.0.1:${port}`, '--proxy-user', user];
    expect(await curl(...options, '--include', 'http://server.test/path')).toEqual({
      code: 0,
      out: expect.stringMatching(/from: 10\.1\.0\.1\r\n[\s\S]*server\.test\/path\n$/),
      err: '',
    });
    expect((await curl(...options, 'http://server.test/long')).out).toBe(BODY);
    expect(accepted).toEqual([]);
    expect(countsOf(proxy)).toEqual({ accepted: 2, connected: 2 });
  });

  test('goes by the two URLs of the proxy', async () => {
    const { proxy } = await served({});
    for (const url of [proxy.socksUrl!, proxy.httpUrl!]) {
      const { out } = await curl('--proxytunnel', '--proxy', url, 'http://server.test/path');
      expect(out, url).toBe('server.test/path\n');
    }
    expect(countsOf(proxy)).toEqual({ accepted: 2, connected: 2 });
  });

  test('goes by CONNECT, with an IPv6 address too', async () => {
    const { proxy, port } = await served();
    const user = `${USER.username}:${USER.password}`;
    const options = ['--proxytunnel', '--proxy', `http://127.0.0.1:${port}`, '--proxy-user', user];
    for (const host of ['server.test', '10.2.0.1', '[2001:db8:2::1]']) {
      expect(await curl(...options, `http://${host}/path`)).toEqual({
        code: 0,
        out: `${host}/path\n`,
        err: '',
      });
    }
    expect((await curl(...options, 'http://server.test/long')).out).toBe(BODY);
    expect(countsOf(proxy)).toEqual({ accepted: 4, connected: 4 });
  });

  test('asks again with credentials when it is told to', async () => {
    const { proxy, port } = await served();
    const user = `${USER.username}:${USER.password}`;
    const options = ['--proxytunnel', '--proxy-anyauth', '--proxy', `http://127.0.0.1:${port}`];
    const { out } = await curl(...options, '--proxy-user', user, 'http://server.test/path');
    expect(out).toBe('server.test/path\n');
    expect(countsOf(proxy)).toEqual({ accepted: 2, connected: 1, unauthenticated: 1 });
  });

  test('says what was refused', async () => {
    const { proxy, port } = await served();
    const user = ['--proxy-user', `${USER.username}:${USER.password}`];
    const socks = ['--socks5-hostname', `127.0.0.1:${port}`];
    const tunnel = ['--proxytunnel', '--proxy', `http://127.0.0.1:${port}`];
    const failures = [
      [[...socks, ...user, 'http://example.com/'], 97, '(4)'],
      [[...socks, ...user, 'http://server.test:9/'], 97, '(5)'],
      [[...socks, 'http://server.test/'], 97, ''],
      [[...tunnel, ...user, 'http://example.com/'], 56, '502'],
      [[...tunnel, 'http://server.test/'], 56, '407'],
      [['--socks4a', `127.0.0.1:${port}`, 'http://server.test/'], 97, ''],
    ] as const;
    for (const [args, code, text] of failures) {
      const outcome = await curl(...args);
      expect([outcome.code, outcome.err.includes(text)], outcome.err).toEqual([code, true]);
    }
    expect(countsOf(proxy)).toEqual({
      accepted: 6,
      connectionRefused: 1,
      unauthenticated: 2,
      unknownName: 2,
      unsupported: 1,
    });
  });

  test('without a tunnel gets 405', async () => {
    const { proxy, port } = await served();
    const options = ['--proxy', `http://127.0.0.1:${port}`, '--write-out', '%{http_code}'];
    expect((await curl(...options, 'http://server.test/')).out).toBe(
      'This proxy has no other method than CONNECT.\n405'
    );
    const expecting = ['--header', 'Expect: 100-continue', '--data', 'x'.repeat(2000)];
    expect((await curl(...options, ...expecting, 'http://server.test/')).out).toContain('405');
    expect(countsOf(proxy)).toEqual({ accepted: 2, unsupported: 2 });
  });

  test('goes through a unix socket', async () => {
    const path = join(directory, 'proxy.sock');
    const { proxy } = await served({ auth: false }, { path });
    const { out } = await curl('--proxy', `socks5h://localhost${path}`, 'http://server.test/path');
    expect(out).toBe('server.test/path\n');
    expect(countsOf(proxy)).toEqual({ accepted: 1, connected: 1 });
  });
});

describe('undici', () => {
  test('goes by CONNECT, with the credentials of the URL or a token', async () => {
    const { proxy, port } = await served();
    const agents = [
      new ProxyAgent({ uri: proxy.httpUrl!, proxyTunnel: true }),
      new ProxyAgent({ uri: `http://127.0.0.1:${port}`, token: basic(), proxyTunnel: true }),
    ];
    for (const dispatcher of agents) {
      const answers = await Promise.all(
        ['/path', '/long'].map((path) => fetch(`http://server.test${path}`, { dispatcher }))
      );
      const texts = await Promise.all(answers.map((answer) => answer.text()));
      expect(texts).toEqual(['server.test/path\n', BODY]);
      await dispatcher.close();
    }
    expect(proxy.counters.connected).toBe(proxy.counters.accepted);
  });

  test('learns the status of what was refused', async () => {
    const { proxy, stack } = await served();
    const dispatcher = new ProxyAgent({ uri: proxy.httpUrl!, proxyTunnel: true });
    const error = await fetch('http://example.com/', { dispatcher }).catch((reason) => reason);
    expect(String(error.cause.cause)).toContain('502');
    stack.setSite({ ...SITE, hosts: [] });
    const later = await fetch('http://server.test/', { dispatcher }).catch((reason) => reason);
    expect(String(later.cause.cause)).toContain('502');
    await dispatcher.close();
    expect(countsOf(proxy)).toEqual({ accepted: 2, unknownName: 2 });
  });
});
