/**
 * An edge that was away for longer than its names may be cached: a presence that became that of another host meanwhile is
 * barred until no cache names the first one.
 */
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { PortRange } from '../../src/base/port-range.ts';
import type { Snapshot } from '../../src/control/index.ts';
import { EdgeBars } from '../../src/gateway/edge-bars.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { JumpingClock } from '../support/jumping-clock.ts';
import { Relay } from '../support/relay.ts';
import { ANY_PORT, Gateways, Hosts, LAN, SERVICE } from './scene.ts';

const TTL_SECONDS = 300;
const TTL_MS = 1000 * TTL_SECONDS;
const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const WAIT = { timeout: 30_000 };

/** Hosts as `name=address`; one in brackets offers nothing, a name after a comma is an alias. */
function snapshot(...hosts: string[]): Snapshot {
  return {
    revision: 1,
    site: 'site-a',
    sources: [],
    pools: [],
    zone: 'example.test',
    ttlSeconds: TTL_SECONDS,
    pointers: [],
    hosts: hosts.map((text) => {
      const [names = '', address = ''] = text.replace(/[[\]]/g, '').split('=');
      const [name = '', ...aliases] = names.split(',');
      return {
        name,
        aliases,
        addresses: [IpAddress.parse(address)],
        ports: text.startsWith('[') ? [] : [PortRange.from('tcp/80')],
      };
    }),
  };
}

describe('EdgeBars', () => {
  let barred: string[] = [];
  const clock = new FakeClock();
  const bars = (): EdgeBars => {
    barred = [];
    return new EdgeBars(clock, (addresses) => {
      barred = addresses.map(String);
    });
  };
  const K = snapshot('k=10.0.0.200');

  test('bars for a TTL what the snapshot gives to another host', () => {
    const edge = bars();
    edge.follow(undefined, K, 0);
    edge.follow(K, snapshot('l=10.0.0.200', 'm=fd00::1'), TTL_MS);
    expect(barred).toEqual(['10.0.0.200']);
    clock.advance(TTL_MS - 1);
    expect(barred).toEqual(['10.0.0.200']);
    clock.advance(1);
    expect(barred).toEqual([]);
    expect(clock.delays).toEqual([]);
  });

  test('bars it also if the presence is first nobody’s', () => {
    const edge = bars();
    edge.follow(K, snapshot(), TTL_MS);
    expect(barred).toEqual([]);
    clock.advance(TTL_MS / 2);
    edge.follow(snapshot(), snapshot('l=10.0.0.200'), 0);
    expect(barred).toEqual(['10.0.0.200']);
    clock.advance(TTL_MS / 2);
    expect(barred).toEqual([]);
  });

  test.each([
    ['an edge that was not away', 0, K, snapshot('l=10.0.0.200')],
    ['the same host', TTL_MS, K, K],
    ['a host that keeps one of its names', TTL_MS, snapshot('k,a=::5'), snapshot('b,a=::5')],
    ['a host that is only a client now', TTL_MS, K, snapshot('[l=10.0.0.200')],
    ['a presence that nobody had', TTL_MS, K, snapshot('k=10.0.0.200', 'l=10.0.0.201')],
  ])('bars nothing for %s', (_what, awayMs, before, after) => {
    const edge = bars();
    edge.follow(before, after, awayMs);
    expect(barred).toEqual([]);
    edge.close();
  });

  test('an absence counts from when the edge was cut off, which it notices later', () => {
    const edge = bars();
    edge.follow(K, snapshot('l=10.0.0.200'), TTL_MS - 40_000);
    expect(barred).toEqual(['10.0.0.200']);
    edge.close();
    expect(clock.delays).toEqual([]);
  });
});

const gateways = new Gateways();
afterEach(() => gateways.close());

/** The clock of the system, set forward. */
class EarlyClock implements Clock {
  aheadMs = 0;
  readonly after: Clock['after'] = systemClock.after;
  readonly wallMs: Clock['wallMs'] = systemClock.wallMs;

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.aheadMs;
  }
}

test('no packet for a host that has gone reaches the one that has its presence now', async () => {
  const service = new Hosts();
  const reached: string[] = [];
  service.serve(({ destination, payload }) => {
    reached.push(`${Buffer.from(payload)} at ${destination}`);
    return 'yes';
  });
  const cloudClock = new EarlyClock();
  const cloud = await gateways.cloud({
    device: service.device,
    clock: cloudClock,
    ttlSeconds: TTL_SECONDS,
    desired: {
      sites: ['cloud', 'site-a'].map((name) => ({
        name,
        ...LAN,
        pools: name === 'cloud' ? LAN.pools : ['10.0.0.200/32'],
      })),
      services: [SERVICE, { ...SERVICE, name: 'web', address: '10.0.0.6' }],
    },
  });
  await cloud.expose({ service: 'bus', site: 'site-a' });
  const { port } = cloud.addresses.tunnels[0]!;
  const relay = await Relay.open(port);
  onTestFinished(() => relay.close());
  const hosts = new Hosts();
  const clock = new JumpingClock();
  const edge = await gateways.edge({
    device: hosts.device,
    clock,
    dns: { listen: ANY_PORT },
    token: await cloud.createToken({ site: 'site-a' }),
    cloud: [`127.0.0.1:${relay.port}`],
  });
  await edge.ready(PATIENCE);
  const addressOf = (name: string): string =>
    edge
      .lookup(name)
      .flatMap((host) => host.addresses)
      .join();
  await vi.waitFor(() => expect(addressOf('bus')).toBe('10.0.0.200'), WAIT);
  expect(await hosts.request('10.0.0.200', 'for bus')).toBe('yes');

  relay.cut();
  await vi.waitFor(() => expect(edge.status().state).toBe('connecting'), WAIT);
  await cloud.unexpose({ service: 'bus', site: 'site-a' });
  clock.jump(TTL_MS);
  cloudClock.aheadMs = 10 * TTL_MS;
  await cloud.expose({ service: 'web', site: 'site-a' });
  await vi.waitFor(() => expect(cloud.lookup('web', 'site-a')).toHaveLength(1), WAIT);
  relay.target = port;
  await vi.waitFor(() => expect(addressOf('web')).toBe('10.0.0.200'), WAIT);
  reached.length = 0;
  const send = (text: string): void =>
    hosts.send({
      source: '10.0.0.5',
      sourcePort: 40_000,
      destination: '10.0.0.200',
      destinationPort: 7,
      payload: Buffer.from(text),
    });
  // A client of the site has cached the name of `bus`.
  send('for bus');
  const dropped = async (): Promise<unknown> => {
    const drops = (await edge.metrics()).find(({ name }) =>
      name.endsWith('_dropped_packets_total')
    );
    return drops!.samples.find(({ labels }) => labels.reason === 'barred');
  };
  await vi.waitFor(async () => expect(await dropped()).toMatchObject({ value: 1 }), WAIT);
  clock.jump(TTL_MS);
  expect(await hosts.request('10.0.0.200', 'for web')).toBe('yes');
  expect(new Set(reached)).toEqual(new Set(['for web at 10.0.0.6']));
});
