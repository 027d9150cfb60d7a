import { expect, test } from 'vitest';
import { ApiMisuseError, CertificateError, ConfigError } from '../../src/errors.ts';
import type { PresenceError } from '../../src/index.ts';
import {
  DIAL_DEFAULTS,
  LISTEN_DEFAULTS,
  MtlsTunnel,
  TunnelListener,
} from '../../src/tunnel/index.ts';
import { CLOUD } from '../support/certificates.ts';
import { cloud, dial, listen, next, pair, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

/** A caller without types may pass anything. */
type Wrong = Readonly<Record<string, unknown>>;
type Fault = new (...args: never[]) => PresenceError;

const SHARED: [Wrong, Fault, RegExp][] = [
  [{ key: 5 }, CertificateError, /^key of the tunnel must be a PEM text, not a value of type n/],
  [{ cert: '' }, CertificateError, /^cert of the tunnel must be a PEM text, not an empty one/],
  // Without any, Node would trust the public CAs of the web.
  [{ ca: undefined }, CertificateError, /^ca of the tunnel must be a PEM text, not a value of t/],
  [{ ca: ' ' }, CertificateError, /^ca of the tunnel must be a PEM text/],
  [{ connections: 0 }, ApiMisuseError, /^connections must be a whole number from 1 to 64, not 0$/],
  [
    { connections: '8' },
    ApiMisuseError,
    /^connections must be a whole number from 1 to 64, not "8"$/,
  ],
  [{ software: '' }, ApiMisuseError, /^software must be a text of 1 to 256 characters, not ""$/],
  [{ software: 7 }, ApiMisuseError, /^software must be a text of 1 to 256 characters, not 7$/],
  [{ slabBytes: '1' }, ApiMisuseError, /^slabBytes must be a whole number, not "1"$/],
  [{ slabBytes: 1 }, ApiMisuseError, /^a slab of 1 bytes does not hold the largest packet$/],
  [{ maxSlabs: null }, ApiMisuseError, /^maxSlabs must be a positive integer, not null$/],
  [{ clock: {} }, ApiMisuseError, /^clock must be a Clock, but its wallMs is no function$/],
  [{ clock: null }, ApiMisuseError, /^clock must be a Clock, but its wallMs is no function$/],
  [{ tcp: {} }, ApiMisuseError, /^tcp must be an object with the methods of TcpControl, not/],
  [{ handshakeTimeoutMs: 0 }, ApiMisuseError, /^handshakeTimeoutMs must be a number above 0, n/],
];

test.each<[Wrong, Fault, RegExp]>([
  ...SHARED,
  [{ endpoints: undefined }, ApiMisuseError, /^endpoints must be a list of hosts and ports, not u/],
  [{ endpoints: '192.0.2.1:1' }, ApiMisuseError, /^endpoints must be a list of hosts and ports/],
  [{ endpoints: [] }, ApiMisuseError, /^there is no endpoint to dial$/],
  [{ endpoints: ['192.0.2.1'] }, ConfigError, /^endpoints\[0\]: expected a host and port such/],
  [{ endpoints: [{ host: 'a', port: 0 }] }, ConfigError, /^endpoints\[0\]: expected a port from 1/],
  [{ endpoints: ['a:1', 7] }, ConfigError, /^endpoints\[1\]: expected a string, got 7$/],
  [{ expectedPeer: undefined }, ApiMisuseError, /^expectedPeer must name a trustDomain/],
  [{ expectedPeer: { ...CLOUD, role: 'site' } }, ApiMisuseError, /^expectedPeer must name/],
  [{ expectedPeer: { ...CLOUD, trustDomain: 'A' } }, CertificateError, /is not a lower-case DNS/],
  [{ proxy: 'socks5://a' }, ConfigError, /^proxy: expected http:/],
  [{ proxy: 3128 }, ConfigError, /^proxy: expected http:/],
  [{ backoff: 5 }, ApiMisuseError, /^the options must be an object, not 5$/],
  [
    { backoff: { minMs: -1 } },
    ApiMisuseError,
    /^backoff.minMs must be a number, 0 or more, not -1/,
  ],
  [{ stableAfterMs: -1 }, ApiMisuseError, /^stableAfterMs must be a whole number from 0/],
  [{ random: 0.5 }, ApiMisuseError, /^random must be a function, not 0.5$/],
])('nothing is dialled with %j', (wrong, fault, says) => {
  const options = { endpoints: ['127.0.0.1:9'], expectedPeer: CLOUD, ...siteA, ...wrong };
  let error: unknown;
  try {
    MtlsTunnel.dial(options as never).destroy();
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(fault);
  expect((error as Error).message).toMatch(says);
});

test.each<[Wrong, Fault, RegExp]>([
  ...SHARED,
  [{ port: undefined }, ApiMisuseError, /^port must be a whole number from 0 to 65535, not undef/],
  [{ port: '7443' }, ApiMisuseError, /^port must be a whole number from 0 to 65535, not "7443"$/],
  [{ port: 65_536 }, ApiMisuseError, /^port must be a whole number from 0 to 65535, not 65536$/],
  [{ host: 5 }, ApiMisuseError, /^host must be an address or a name, not 5$/],
  [{ host: '' }, ApiMisuseError, /^host must be an address or a name, not ""$/],
  [{ authorize: 'all' }, ApiMisuseError, /^authorize must be a function, not "all"$/],
  [{ peerRole: 'edge' }, ApiMisuseError, /^peerRole must be site or cloud, not "edge"$/],
  [{ keepaliveMs: 99 }, ApiMisuseError, /^keepaliveMs must be a whole number from 100 to 600000/],
  [{ maxHandshakes: 0 }, ApiMisuseError, /^maxHandshakes must be a positive integer, not 0$/],
  [{ maxTunnelRate: 'fast' }, ApiMisuseError, /^maxTunnelRate must be a number above 0, not "fa/],
  [{ otherProtocols: 'h2' }, ApiMisuseError, /^otherProtocols must be functions by their ALPN/],
  [{ otherProtocols: { h2: 1 } }, ApiMisuseError, /^otherProtocols must have ALPN names/],
])('nothing listens with %j', async (wrong, fault, says) => {
  const servers = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPServerWrap');
  const before = servers().length;
  const options = { host: '127.0.0.1', port: 0, ...cloud, ...wrong };
  const error: unknown = await MtlsTunnel.listen(options as never).then(
    (listener) => listener.close(),
    (reason: unknown) => reason
  );
  expect(error).toBeInstanceOf(fault);
  expect((error as Error).message).toMatch(says);
  expect(servers().length).toBe(before);
});

test.each([undefined, null, 'all'])('nothing is opened with the options %j', async (options) => {
  expect(() => MtlsTunnel.dial(options as never)).toThrow(ApiMisuseError);
  await expect(Promise.resolve().then(() => MtlsTunnel.listen(options as never))).rejects.toThrow(
    ApiMisuseError
  );
});

test('the defaults cannot be changed', () => {
  expect(Object.isFrozen(DIAL_DEFAULTS) && Object.isFrozen(LISTEN_DEFAULTS)).toBe(true);
  expect(Object.isFrozen(DIAL_DEFAULTS.backoff)).toBe(true);
});

test('an endpoint may be given as text', async () => {
  const { port } = await listen();
  const tunnel = dial(port, { endpoints: [`127.0.0.1:${port}`] });
  await next(tunnel, 'up');
  expect(tunnel.info?.remotePort).toBe(port);
});

test('both ends are an MtlsTunnel, and what takes connections is a TunnelListener', async () => {
  const [dialled, accepted, listener] = await pair({ software: 'cloud/1' }, { software: 'edge/1' });
  expect(dialled).toBeInstanceOf(MtlsTunnel);
  expect(accepted).toBeInstanceOf(MtlsTunnel);
  expect(listener).toBeInstanceOf(TunnelListener);
  expect([dialled.software, accepted.software]).toEqual(['cloud/1', 'edge/1']);
  expect(dialled.certificates).toHaveLength(1);
});

test('a tunnel of the listening side has no credentials of its own', async () => {
  const [, accepted] = await pair();
  await expect(accepted.updateCredentials(cloud)).rejects.toThrow(ApiMisuseError);
});

test('a tunnel and a listener are closed once, and are disposable', async () => {
  const [dialled, accepted, listener] = await pair();
  const down = next(accepted, 'down');
  const closing = dialled.close({ code: 'shutdown', reason: 'the first one counts' });
  expect(dialled.close({ code: 'replaced' })).toBe(closing);
  expect(dialled[Symbol.asyncDispose]()).toBe(closing);
  expect((await down)[0]).toMatchObject({ reason: 'the first one counts' });
  await closing;
  const all = listener.close();
  expect([listener.close(), listener[Symbol.asyncDispose]()]).toEqual([all, all]);
  await all;
});

test('a tunnel that is being closed can still be ended at once', async () => {
  const [dialled] = await pair();
  const closing = dialled.close();
  dialled.destroy();
  await closing;
  expect(dialled.state).toBe('closed');
});
