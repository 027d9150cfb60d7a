/**
 * What ends when the plan changes: connections whose presence stands for another host, or whose port is not exposed any
 * more, and before the plan is in force.
 */
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { Endpoint } from '../../src/base/endpoint.ts';
import { PortRange } from '../../src/base/port-range.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import type { PlanTarget } from '../../src/control/index.ts';
import { MemoryDevice } from '../../src/device/index.ts';
import { type CloudDesired, CloudSockets } from '../../src/gateway/cloud-sockets.ts';
import { type PresenceSocket, SocketBackend, SocketStack } from '../../src/sockets/index.ts';
import type { Permit, Presence, TranslationPlan } from '../../src/translator/index.ts';
import { pump } from '../support/device-pump.ts';

const CLOUD_HOST = '10.0.0.1';
const PRESENCE = '10.0.0.129';
const OTHER_PRESENCE = '10.0.0.130';

/** A presence in the cloud for the host 10.0.0.9 of a site. */
function presence(site: string, address: string = PRESENCE): Presence {
  const of = new Endpoint(site, IpAddress.parse('10.0.0.9'));
  return { realm: 'cloud', address: IpAddress.parse(address), of };
}

/** Exposes ports of the stack to a site. */
function permit(realm: string, port = 'tcp/7', clients?: string): Permit {
  const service = new Endpoint('cloud', IpAddress.parse(CLOUD_HOST));
  const ports = [PortRange.parse(port)];
  return { realm, service, ports, ...(clients && { clients: [IpPrefix.parse(clients)] }) };
}

/** Exposes port 7 of the host 10.0.0.9 of a site to the cloud. */
function permitToCloud(site: string): Permit {
  return { realm: 'cloud', service: presence(site).of, ports: [PortRange.parse('tcp/7')] };
}

function plan(presences: Presence[], permits: Permit[]): TranslationPlan {
  return { realms: [], presences, permits };
}

const NOTHING_DESIRED: CloudDesired = {
  sites: () => [],
  servicesOf: () => [],
  exposuresOf: () => [],
};
const NOWHERE: PlanTarget = { load: () => {}, apply: () => {} };

let stack: SocketStack;
let peer: SocketStack;
let sockets: CloudSockets;
/** How many connections there were when a plan came into force. */
let connections: number[];
let target: ReturnType<CloudSockets['before']>;

beforeEach(() => {
  stack = new SocketStack({ address: CLOUD_HOST });
  const lan = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'example.test' };
  stack.setSite({
    ...lan,
    hosts: [{ name: 'peer.example.test', addresses: [PRESENCE], ports: ['tcp/7'] }],
  });
  // To the peer, the stack is a presence.
  peer = new SocketStack({ address: PRESENCE });
  peer.setSite({
    sources: ['10.0.0.128/25'],
    pools: ['10.0.0.0/25'],
    zone: lan.zone,
    hosts: [{ name: 'stack.example.test', addresses: [CLOUD_HOST], ports: ['tcp/7'] }],
  });
  const [near, far] = MemoryDevice.pair();
  pump(stack, near);
  pump(peer, far);
  const device = { type: 'sockets' } as const;
  sockets = new CloudSockets(stack, device, NOTHING_DESIRED);
  connections = [];
  const note = (): void => void connections.push([...stack.tcp.connections()].length);
  target = sockets.before({ load: note, apply: note });
});
afterEach(async () => {
  await sockets.finish();
  await Promise.all([stack.close(), peer.close()]);
});

/** Connects the peer to the stack, or the stack to the peer. Returns the stack's side. */
async function connected(from: 'peer' | 'stack'): Promise<PresenceSocket> {
  const [near, far, host] = from === 'peer' ? [peer, stack, 'stack'] : [stack, peer, 'peer'];
  const server = far.createServer().listen(7);
  await once(server, 'listening');
  const client = near.connect({ host: host as string, port: 7 });
  client.on('error', () => {});
  const [[accepted]] = (await Promise.all([
    once(server, 'connection'),
    once(client, 'connect'),
  ])) as [[PresenceSocket], unknown];
  accepted.on('error', () => {});
  return from === 'peer' ? accepted : client;
}

function failureOf(socket: PresenceSocket): Promise<NodeJS.ErrnoException> {
  return new Promise((resolve) => socket.once('error', resolve));
}

describe('a connection of a client', () => {
  test('ends before its address stands for another host, which the address is leased to at once', async () => {
    const permits = [permit('site-a'), permit('site-b')];
    target.load(plan([presence('site-a')], permits));
    const error = failureOf(await connected('peer'));
    target.load(plan([presence('site-b')], permits));
    expect(connections).toEqual([0, 0]);
    expect(await error).toMatchObject({
      code: 'ECONNRESET',
      cause: { message: `${PRESENCE} no longer stands for 10.0.0.9 of site-a` },
    });
  });

  test('goes on while nothing of it changes, and ends with what was added later', async () => {
    target.load(plan([], [permit('site-a')]));
    target.apply({ presences: [presence('site-a')] });
    await connected('peer');
    target.apply({ presences: [presence('site-b', OTHER_PRESENCE)] });
    target.load(plan([presence('site-a')], [permit('site-b'), permit('site-a')]));
    expect(connections).toEqual([0, 0, 1, 1]);
    target.load(plan([], [permit('site-a')]));
    expect(connections.at(-1)).toBe(0);
  });

  test.each([
    ['the service', []],
    ['the port', [permit('site-a', 'tcp/8')]],
    ['the site', [permit('site-b')]],
    ['the client', [permit('site-a', 'tcp/7', '10.0.0.8/32')]],
    ['the protocol', [permit('site-a', 'udp/7')]],
  ])('ends when %s is not exposed any more', async (_, permits) => {
    target.load(plan([presence('site-a')], [permit('site-a')]));
    const error = failureOf(await connected('peer'));
    target.load(plan([presence('site-a')], permits));
    expect(connections.at(-1)).toBe(0);
    expect(await error).toMatchObject({ cause: { message: 'tcp/7 is no longer exposed' } });
  });

  test.each([
    ['its presence', { presences: [{ ...presence('site-a'), of: undefined }] }],
    ['its host', { presences: [presence('site-b')] }],
    ['the permit', { permits: [{ ...permit('site-a'), permits: [permit('site-a', 'udp/7')] }] }],
    ['its site', { realms: [{ name: 'site-a', realm: undefined }] }],
  ])('ends with a change of %s, and with no other', async (_, changes) => {
    target.load(plan([presence('site-a')], [permit('site-a')]));
    const error = failureOf(await connected('peer'));
    target.apply({
      presences: [presence('site-a'), presence('site-b', OTHER_PRESENCE)],
      permits: [
        { ...permit('site-a'), permits: [permit('site-a', 'udp/7'), permit('site-a')] },
        { ...permit('site-b'), permits: [] },
      ],
      realms: [{ name: 'site-b', realm: undefined }],
    });
    expect(connections.at(-1)).toBe(1);
    target.apply(changes);
    expect(connections.at(-1)).toBe(0);
    expect(await error).toHaveProperty('code', 'ECONNRESET');
  });

  test('goes on while another exposure permits it', async () => {
    target.load(plan([presence('site-a')], [permit('site-a'), permit('site-a', 'tcp/1-9')]));
    await connected('peer');
    target.load(plan([presence('site-a')], [permit('site-a', 'tcp/1-9', '10.0.0.0/28')]));
    expect(connections.at(-1)).toBe(1);
  });
});

describe('a connection to a service of a site', () => {
  test.each([
    ['exposure', plan([presence('site-a')], []), 'tcp/7 is no longer exposed'],
    ['presence', plan([], [permitToCloud('site-a')]), /no longer stands for/],
  ])('ends with its %s', async (_, gone, message) => {
    target.load(plan([presence('site-a')], [permitToCloud('site-a')]));
    sockets.onEdge({ site: 'site-a', state: 'up', remoteAddress: '127.0.0.1' });
    const error = failureOf(await connected('stack'));
    target.load(gone);
    expect(connections.at(-1)).toBe(0);
    expect(await error).toMatchObject({ code: 'ECONNRESET', cause: { message } });
  });
});

test('a service that gets another name is told to the backend, if only one name has a header', () => {
  const setServices = vi.spyOn(SocketBackend.prototype, 'setServices');
  onTestFinished(() => setServices.mockRestore());
  let name = 'tmp';
  const address = IpAddress.parse('127.0.0.1');
  const service = { site: 'cloud', address, ports: [PortRange.parse('tcp/80')] };
  const other = new SocketStack({ address: CLOUD_HOST });
  const renamed = new CloudSockets(
    other,
    { type: 'sockets', backend: { proxyProtocol: ['web'] } },
    {
      ...NOTHING_DESIRED,
      servicesOf: () => [{ ...service, name }],
      exposuresOf: () => [{ service: name, site: 'a' }],
    }
  );
  onTestFinished(() => Promise.all([renamed.finish(), other.close()]).then(() => {}));
  const plans = renamed.before(NOWHERE);
  for (name of ['tmp', 'other', 'web', 'web', 'tmp']) plans.load(plan([], []));
  const told = setServices.mock.calls.map(([[first]]) => first?.proxyProtocol === true);
  expect(told).toEqual([false, true, false]);
});

test('what is bound at one gateway before its first plan is not known to another', () => {
  target.apply({ presences: [presence('site-a')] });
  const other = new SocketStack({ address: CLOUD_HOST });
  const fresh = new CloudSockets(other, { type: 'sockets' }, NOTHING_DESIRED);
  onTestFinished(() => Promise.all([fresh.finish(), other.close()]).then(() => {}));
  // The site of the presence has no tunnel.
  const canReach = (of: CloudSockets): boolean => of.stack.canReach([IpAddress.parse(PRESENCE)]);
  expect([canReach(sockets), canReach(fresh)]).toEqual([false, true]);
});
