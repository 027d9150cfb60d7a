/**
 * Tunnels on loopback, with certificates of one CA, that end with the test.
 * @module
 */
import { afterEach, beforeAll } from 'vitest';
import type { GatewayIdentity } from '../../src/pki/index.ts';
import {
  type ConnectionInfo,
  type Credentials,
  type DialOptions,
  type ListenOptions,
  MtlsTunnel,
  type RefusedConnection,
  type TunnelEvents,
  type TunnelListener,
} from '../../src/tunnel/index.ts';
import { CLOUD, site, TestCa } from '../support/certificates.ts';
import { type RawPeer, rawServer } from '../support/raw-peer.ts';

export let ca: TestCa;
export let cloud: Credentials;
export let siteA: Credentials;
export let siteB: Credentials;
/** Done in reverse order after each test. */
export const cleanUp: (() => unknown)[] = [];

/** Each test file calls this once. */
export function setUpTunnels(): void {
  beforeAll(async () => {
    ca = await TestCa.create();
    cloud = await ca.issue(CLOUD);
    siteA = await ca.issue(site('site-a'));
    siteB = await ca.issue(site('site-b'));
  });
  afterEach(async () => {
    for (const step of cleanUp.splice(0).reverse()) await step();
  });
}

/** A tunnel of the listening side that is up: who the peer is, is known. */
export type ConnectedTunnel = MtlsTunnel & {
  readonly peer: GatewayIdentity;
  readonly info: ConnectionInfo;
};

export async function listen(
  options: Partial<ListenOptions> & {
    readonly onRefused?: (refused: RefusedConnection) => void;
  } = {}
): Promise<TunnelListener> {
  const { onRefused, ...rest } = options;
  const listener = await MtlsTunnel.listen({ host: '127.0.0.1', port: 0, ...cloud, ...rest });
  if (onRefused !== undefined) listener.on('refused', onRefused);
  cleanUp.push(() => listener.close());
  return listener;
}

export function dial(port: number, options: Partial<DialOptions> = {}): MtlsTunnel {
  const tunnel = MtlsTunnel.dial({
    endpoints: [{ host: '127.0.0.1', port }],
    expectedPeer: CLOUD,
    random: () => 0.5,
    ...siteA,
    ...options,
  });
  cleanUp.push(() => tunnel.destroy());
  return tunnel;
}

export async function serve(
  onPeer: (peer: RawPeer) => void,
  credentials: Credentials = cloud,
  options: Parameters<typeof rawServer>[2] = {}
): Promise<number> {
  const peers: RawPeer[] = [];
  const { port, server } = await rawServer(
    credentials,
    (peer) => {
      peers.push(peer);
      onPeer(peer);
    },
    options
  );
  cleanUp.push(() => {
    for (const peer of peers) peer.socket.destroy();
    server.close();
  });
  return port;
}

export function next<E extends keyof TunnelEvents>(
  tunnel: MtlsTunnel,
  event: E
): Promise<TunnelEvents[E]> {
  return new Promise((resolve) => {
    tunnel.once(event, ((...args: TunnelEvents[E]) => resolve(args)) as never);
  });
}

/** Both ends of a tunnel that is up. */
export async function pair(
  listenOptions: Partial<ListenOptions> = {},
  dialOptions: Partial<DialOptions> = {}
): Promise<[MtlsTunnel, ConnectedTunnel, TunnelListener]> {
  const listener = await listen(listenOptions);
  const accepted = new Promise<ConnectedTunnel>((resolve) =>
    listener.once('tunnel', (tunnel) => resolve(tunnel as ConnectedTunnel))
  );
  const dialled = dial(listener.port, dialOptions);
  await next(dialled, 'up');
  return [dialled, await accepted, listener];
}
