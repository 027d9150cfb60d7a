/**
 * A man in the middle impersonates the cloud to a gateway whose environment disables Node's verification of
 * certificates (`NODE_TLS_REJECT_UNAUTHORIZED=0`), which some operators set.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { createServer, type TLSSocket } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { formatToken, randomSecret, randomTokenId } from '../../src/pki/token.ts';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { ALPN_PROTOCOL } from '../../src/tunnel/messages.ts';
import { CLOUD, site, TestCa } from '../support/certificates.ts';
import { frameBytes, WELCOME } from '../support/raw-peer.ts';

/** Data that the impostor wants a gateway to accept. */
const TRUST = { type: 'trust', caPem: 'of the impostor' };

let ca: TestCa;
let siteA: Credentials;

beforeAll(async () => {
  ca = await TestCa.create();
  siteA = await ca.issue(site('site-a'));
});

interface Outcome {
  /** The output of the gateway. */
  readonly said: readonly Record<string, unknown>[];
  /** How many connections the gateway opened, and what it sent on all of them after the handshake. */
  readonly connections: number;
  readonly received: string;
}

/** Starts a gateway against a server with this certificate, which answers everything by `answer`. */
async function before(
  { key, cert }: Pick<Credentials, 'key' | 'cert'>,
  answer: (socket: TLSSocket) => void,
  argumentsFor: (port: number) => readonly string[]
): Promise<Outcome> {
  let connections = 0;
  let received = '';
  const server = createServer({
    key,
    cert,
    requestCert: true,
    rejectUnauthorized: false,
    minVersion: 'TLSv1.3',
    ALPNProtocols: [ALPN_PROTOCOL, 'http/1.1'],
  });
  server.on('tlsClientError', () => {});
  server.on('secureConnection', (socket) => {
    connections++;
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
    });
    socket.on('end', () => socket.end());
    answer(socket);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const child = spawn(
      process.execPath,
      ['--import', 'tsx', '--no-warnings', CHILD, ...argumentsFor(port)],
      {
        env: { ...process.env, NODE_TLS_REJECT_UNAUTHORIZED: '0' },
        stdio: ['ignore', 'pipe', 'inherit'],
      }
    );
    const [printed, [code]] = await Promise.all([text(child.stdout), once(child, 'close')]);
    expect(code).toBe(0);
    const closed = new Promise((resolve) => server.close(resolve));
    await closed;
    const said = printed.trim().split('\n');
    return { said: said.map((line) => JSON.parse(line)), connections, received };
  } finally {
    server.close();
  }
}

/** Returns a certificate of another CA, followed by that CA. */
async function foreign(trustDomain: string): Promise<Pick<Credentials, 'key' | 'cert'>> {
  const other = await TestCa.create(Date.now, trustDomain);
  const { key, cert } = await other.issue({ trustDomain, role: 'cloud' });
  return { key, cert: `${cert}\n${other.authority.certificatePem}` };
}

describe('a gateway that dials', () => {
  const dial = (credentials: Pick<Credentials, 'key' | 'cert'>): Promise<Outcome> =>
    before(
      credentials,
      (socket) => {
        socket.write(frameBytes(FrameType.Welcome, WELCOME));
        socket.write(frameBytes(FrameType.Control, TRUST));
      },
      (port) => {
        const endpoints = [{ host: '127.0.0.1', port }];
        return ['dial', JSON.stringify({ endpoints, expectedPeer: CLOUD, ...siteA })];
      }
    );

  test('opens a tunnel to the cloud itself, and accepts its messages', async () => {
    const { said, received } = await dial(await ca.issue(CLOUD));
    const name = 'spiffe://example.org/cloud';
    expect(said).toEqual([{ up: name, certificate: `URI:${name}` }, { control: TRUST }]);
    expect(received).toContain('"software"');
  });

  test.each<[string, string, () => Promise<Pick<Credentials, 'key' | 'cert'>>]>([
    ['another CA', 'self-signed certificate', () => foreign('example.org')],
    ['another CA and trust domain', 'self-signed certificate', () => foreign('evil.test')],
    ['another CA, without it', 'unable to verify', async () => leafOf(await foreign('evil.test'))],
    ['a site', 'the server is spiffe://example.org/site/site-b', () => ca.issue(site('site-b'))],
    ['an earlier time', 'certificate has expired', () => ca.issueExpired(CLOUD)],
  ])(
    'sends nothing to a server with a certificate of %s, and accepts nothing',
    async (_, why, make) => {
      const { said, received } = await dial(await make());
      expect(said).toEqual([{ failed: expect.stringContaining(why) }]);
      expect(received).toBe('');
    }
  );
});

describe('a site that enrols', () => {
  const secret = randomSecret();
  const enrol = (credentials: Pick<Credentials, 'key' | 'cert'>): Promise<Outcome> =>
    before(
      credentials,
      (socket) => socket.once('data', () => socket.end('HTTP/1.1 500 no\r\n\r\n')),
      (port) => {
        const token = formatToken({
          endpoints: [`https://127.0.0.1:${port}`],
          caSpkiHash: ca.authority.spkiHash,
          trustDomain: 'example.org',
          site: 'site-a',
          id: randomTokenId(),
          secret,
        });
        return ['enrol', token];
      }
    );

  test('sends its secret to the cloud, on its second connection', async () => {
    const { key, cert } = await ca.issue(CLOUD);
    const chain = `${cert}\n${ca.authority.certificatePem}`;
    const { said, connections, received } = await enrol({ key, cert: chain });
    expect(said).toMatchObject([{ code: 'ERR_PRESENCE_ENVIRONMENT' }]);
    expect(connections).toBe(2);
    expect(received.split('POST /v1/enrol ').length - 1).toBe(1);
    expect(received).toContain(secret);
  });

  test.each<[string, number, () => Promise<Pick<Credentials, 'key' | 'cert'>>]>([
    ['of another CA', 1, () => foreign('example.org')],
    [
      'of another CA, with a copy of the one that the token pins',
      2,
      async () => {
        const { key, cert } = await foreign('example.org');
        return { key, cert: `${cert}\n${ca.authority.certificatePem}` };
      },
    ],
    [
      'of a site',
      2,
      async () => {
        const { key, cert } = await ca.issue(site('site-b'));
        return { key, cert: `${cert}\n${ca.authority.certificatePem}` };
      },
    ],
  ])('sends nothing to a server with a certificate %s', async (_, most, make) => {
    const { said, connections, received } = await enrol(await make());
    expect(said).toMatchObject([{ code: 'ERR_PRESENCE_ENROLMENT_WRONG_CA' }]);
    expect(connections).toBeLessThanOrEqual(most);
    expect(received).toBe('');
  });
});

function leafOf({ key, cert }: Pick<Credentials, 'key' | 'cert'>): typeof siteA {
  const [leaf] = String(cert).split(/(?<=-----END CERTIFICATE-----)/);
  return { key, cert: leaf!, ca: '' };
}

const CHILD = fileURLToPath(new URL('./lax-child.ts', import.meta.url));
