/**
 * The names of the cloud's own site at its DNS server: a change of the desired state patches the zone, and nobody makes
 * a snapshot of the cloud for it.
 */
import { afterEach, expect, test, vi } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { Endpoint } from '../../src/base/endpoint.ts';
import { DnsServer, RecordType, Zone } from '../../src/dns/index.ts';
import { CloudNames } from '../../src/gateway/cloud-names.ts';
import { type DesiredInput, Registry } from '../../src/registry/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { SceneClock, turn } from '../control/scene.ts';
import { ANY_PORT, Gateways, LAN } from './scene.ts';

const DESIRED: DesiredInput = {
  sites: ['cloud', 'site-a'].map((name) => ({ name, ...LAN })),
  services: ['console', 'api'].map((name, i) => ({
    ...{ name, site: 'site-a', address: `10.0.0.${9 + i}`, ports: ['tcp/80'] },
  })),
  exposures: [{ service: 'console', site: 'cloud', aliases: ['vnc'] }],
};

const gateways = new Gateways();
afterEach(() => {
  vi.restoreAllMocks();
  return gateways.close();
});

test('the zone of the cloud is patched, and lookup finds the same', async () => {
  const compile = vi.spyOn(Zone, 'compile');
  const setZone = vi.spyOn(DnsServer.prototype, 'setZone');
  const cloud = await gateways.cloud({
    desired: DESIRED,
    dns: { listen: ANY_PORT },
  });
  const snapshots: string[] = [];
  cloud.controller.on('snapshot', ({ site }) => snapshots.push(site));
  const zone = setZone.mock.calls.at(-1)![0]!;
  const answer = (name: string) => zone.lookup(name, RecordType.A).outcome;
  expect(answer('console.example.test')).toBe('success');
  expect(answer('api.example.test')).toBe('nxdomain');
  const before = zone.serial;

  await cloud.expose({ service: 'api', site: 'cloud' });
  expect(answer('api.example.test')).toBe('success');
  expect(zone.serial).toBeGreaterThan(before);
  expect(cloud.lookup('api')).toEqual(cloud.lookup('API.example.test.'));
  expect(cloud.lookup('vnc')).toEqual(cloud.lookup('console'));
  await cloud.unexpose({ service: 'console', site: 'cloud' });
  expect(answer('console.example.test')).toBe('nxdomain');
  expect(cloud.lookup('vnc')).toEqual([]);
  expect(compile).toHaveBeenCalledTimes(setZone.mock.calls.length);
  expect(setZone).toHaveBeenCalledTimes(1);
  expect(snapshots).not.toContain('cloud');

  await cloud.registry.putSite({ name: 'cloud', ...LAN, zone: 'other.test' }, 'file');
  const moved = setZone.mock.calls.at(-1)![0]!;
  expect(moved.lookup('api.other.test', RecordType.A).outcome).toBe('success');
});

test('many names follow in slices, and a renamed zone is served when all names are in it', async () => {
  const registry = await Registry.open(new MemoryStore());
  const [cloudSite, siteA] = DESIRED.sites;
  await registry.apply({ sites: [cloudSite, siteA] }, 'file');
  const clock = new SceneClock();
  const errors: Error[] = [];
  const names = new CloudNames({
    ...{ registry, ttlSeconds: 30, isTransit: false, clock },
    onError: (error) => void errors.push(error),
  });
  await using dns = await DnsServer.listen({ listen: ANY_PORT });
  const setZone = vi.spyOn(dns, 'setZone');
  names.serve(dns);
  const target = names.after({ load: () => {}, apply: () => {} });
  const outcomes = (zone: string) =>
    [0, 199].map((i) => {
      const served = setZone.mock.calls.at(-1)![0]!;
      return served.lookup(`10-1-0-${i}.site-a.${zone}.`, RecordType.A).outcome;
    });
  // In a slice are six looks at the clock.
  clock.tickMs = 0.5;
  const hosts = Array.from({ length: 200 }, (_, i) => i);
  target.apply({
    presences: hosts.map((i) => ({
      realm: 'cloud',
      address: IpAddress.parse(`100.64.0.${i}`),
      of: new Endpoint('site-a', IpAddress.parse(`10.1.0.${i}`)),
    })),
  });
  expect(outcomes('example.test')).toEqual(['success', 'nxdomain']);
  // What changes meanwhile is not lost.
  target.apply({
    presences: [{ realm: 'cloud', address: IpAddress.parse('100.64.0.0'), of: undefined }],
  });
  while (outcomes('example.test')[1] !== 'success') await turn();
  while (outcomes('example.test')[0] !== 'nxdomain') await turn();
  expect(names.lookup('10-1-0-199.site-a')).toHaveLength(1);

  setZone.mockClear();
  await registry.putSite({ ...cloudSite, zone: 'other.test' }, 'file');
  expect(setZone).not.toHaveBeenCalled();
  while (setZone.mock.calls.length === 0) await turn();
  expect(outcomes('other.test')).toEqual(['nxdomain', 'success']);
  expect(outcomes('example.test')).toEqual(['not-authoritative', 'not-authoritative']);
  expect(errors).toEqual([]);
  await registry.close();
});
