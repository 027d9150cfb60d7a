/**
 * The names of the cloud's own site at its DNS server: a change of the desired state patches the zone, and nobody makes
 * a snapshot of the cloud for it.
 */
import { afterEach, expect, test, vi } from 'vitest';
import { DnsServer, RecordType, Zone } from '../../src/dns/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
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
