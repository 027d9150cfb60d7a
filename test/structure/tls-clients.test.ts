/**
 * Whoever opens a TLS connection says that the certificate of the server is to be verified. What is left out is
 * up to the environment of the process (`NODE_TLS_REJECT_UNAUTHORIZED`).
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { readTree } from './source-tree.ts';
import { tlsClientsOf } from './tls-clients.ts';

/** Files with one connection whose server is not verified, and why that is right. */
const UNVERIFIED: Readonly<Record<string, string>> = {
  'src/cli/checks/endpoint-checks.ts': 'looks at what the server shows, and sends nothing',
  'src/pki/enrolment-client.ts': 'looks at what the server shows, and sends nothing',
};

describe('a TLS client', () => {
  const clients = ['src', 'examples'].flatMap((root) =>
    readTree(root).flatMap(({ path }) =>
      tlsClientsOf(path, readFileSync(path, 'utf8')).map((client) => ({ path, ...client }))
    )
  );

  test('says in each place whether it verifies the server', () => {
    expect(clients.filter(({ fault }) => fault !== undefined)).toEqual([]);
  });

  test('verifies the server everywhere but where the table allows it', () => {
    const unverified = clients.filter(({ verifies }) => verifies === false);
    expect(unverified.map(({ path }) => path)).toEqual(Object.keys(UNVERIFIED));
    const verified = clients.filter(({ verifies }) => verifies === true);
    expect(new Set(verified.map(({ path }) => path))).toEqual(
      new Set([
        'src/cli/checks/endpoint-checks.ts',
        'src/pki/enrolment-client.ts',
        'src/sockets/stream/agents.ts',
        'src/tunnel/dial-attempt.ts',
      ])
    );
  });
});

describe('the finder of TLS clients', () => {
  const CONNECT = `import { connect } from 'node:tls';`;
  const DEFAULT = 'it leaves rejectUnauthorized to the default of Node';

  test.each<[string, string, (boolean | string)[]]>([
    ['options without it', `${CONNECT} connect({ port: 1 });`, [DEFAULT]],
    ['no options', `${CONNECT} connect(443, 'host');`, [DEFAULT]],
    ['options of another place', `${CONNECT} connect(options);`, [DEFAULT]],
    ['true', `${CONNECT} connect({ ...options, rejectUnauthorized: true });`, [true]],
    ['false', `${CONNECT} connect(1, { rejectUnauthorized: false });`, [false]],
    [
      'what is spread behind it',
      `${CONNECT} connect({ rejectUnauthorized: true, ...options });`,
      ['rejectUnauthorized does not follow what is spread'],
    ],
    [
      'a variable',
      `${CONNECT} connect({ rejectUnauthorized });`,
      ['rejectUnauthorized is neither true nor false in the source'],
    ],
    [
      'undefined',
      `${CONNECT} connect({ rejectUnauthorized: undefined });`,
      ['rejectUnauthorized is neither true nor false in the source'],
    ],
    ['another name', `import { connect as dial } from 'tls'; dial({});`, [DEFAULT]],
    ['a default import', `import tls from 'node:tls'; tls.connect({});`, [DEFAULT]],
    ['a namespace', `import * as tls from 'node:tls'; tls.connect({});`, [DEFAULT]],
    [
      'a socket around another',
      `import { TLSSocket } from 'node:tls'; new TLSSocket(s);`,
      [DEFAULT],
    ],
    ['an HTTPS request', `import https from 'node:https'; https.get('https://x');`, [DEFAULT]],
    ['an agent', `import { Agent } from 'node:https'; new Agent({ keepAlive: true });`, [DEFAULT]],
    ['HTTP/2', `import http2 from 'node:http2'; http2.connect('https://x');`, [DEFAULT]],
    [
      'a function that is passed on',
      `${CONNECT} const open = connect;`,
      ['it is not called where it is named'],
    ],
    [
      'a module that is taken apart',
      `import tls from 'node:tls'; const { connect } = tls;`,
      ['the module is used as a value'],
    ],
    [
      'a module that is loaded later',
      `const tls = await import('node:tls'); tls.connect({});`,
      ['the module is not loaded by an import declaration'],
    ],
    [
      'a module that is exported again',
      `export { connect } from 'node:tls';`,
      ['the module is not loaded by an import declaration'],
    ],
    ['fetch', `await fetch('https://x');`, ['it verifies as the environment says']],
    [
      'fetch with options',
      `await fetch('https://x', {});`,
      ['it verifies as the environment says'],
    ],
    ['fetch over a dispatcher', `await fetch('https://x', { dispatcher });`, []],
    ['types', `import { type TLSSocket } from 'node:tls'; let x: TLSSocket;`, []],
    ['a type of the module', `import tls from 'node:tls'; let x: tls.TLSSocket;`, []],
    ['a server', `import { createServer } from 'node:tls'; createServer({});`, []],
    ['a method of that name', `${CONNECT} class A { connect() { this.connect(); } }`, []],
    ['TCP', `import { connect } from 'node:net'; connect({ port: 1 });`, []],
  ])('judges %s', (_, text, expected) => {
    const found = tlsClientsOf('x.ts', text).map(({ verifies, fault }) => verifies ?? fault);
    expect(found).toEqual(expected);
  });
});
