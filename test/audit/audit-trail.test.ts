/**
 * Which lines changes of the desired state write.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AuditTrail } from '../../src/audit/index.ts';
import { Registry } from '../../src/registry/index.ts';
import { MemoryStore } from '../../src/store/index.ts';

const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'example.test' };

let directory: string;
let path: string;
let store: MemoryStore;
let registry: Registry;
let trail: AuditTrail;
/** How often all exposures were read since the trail follows the registry. */
let readings: number;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'vp-audit-'));
  path = join(directory, 'audit.jsonl');
  store = new MemoryStore();
  registry = await Registry.open(store);
  const sites = ['cloud', 'site-a', 'site-b'].map((name) => ({ name, ...LAN }));
  const services = ['mq', 'db'].map((name, i) => ({
    ...{ name, site: 'cloud', address: `10.0.0.${i + 1}`, ports: ['tcp/80'] },
  }));
  const exposures = [{ service: 'mq', site: 'site-a' }];
  await registry.apply({ sites, services, exposures }, 'file');
  trail = await AuditTrail.open({ path });
  trail.follow(registry);
  readings = 0;
  const all = registry.exposures.bind(registry);
  registry.exposures = () => {
    readings++;
    return all();
  };
});
afterEach(async () => {
  await trail.close();
  await registry.close();
  rmSync(directory, { recursive: true });
});

/** Returns the lines since the start, each as kind, site and service. */
async function lines(): Promise<string[]> {
  await trail.close();
  return linesOf(path);
}

function linesOf(file: string): string[] {
  const all = readFileSync(file, 'utf8').trim().split('\n');
  return all.slice(1).map((line) => {
    const { kind, site, detail } = JSON.parse(line);
    return `${kind} ${site} ${detail.service} ${detail.ports.join()}`;
  });
}

test('an exposure that begins, changes or ends has its lines, and no other is read', async () => {
  await registry.expose({ service: 'db', site: 'site-a' }, 'admin');
  await registry.expose({ service: 'db', site: 'site-a', dnsName: 'sql' }, 'admin');
  await registry.unexpose({ service: 'db', site: 'site-a' }, 'admin');
  expect(await lines()).toEqual([
    'expose site-a db tcp/80',
    'unexpose site-a db tcp/80',
    'expose site-a db tcp/80',
    'unexpose site-a db tcp/80',
  ]);
  expect(readings).toBe(0);
});

test('a service that changes is written for each of its sites', async () => {
  await registry.expose({ service: 'mq', site: 'site-b' }, 'admin');
  const mq = { name: 'mq', site: 'cloud', address: '10.0.0.1', ports: ['tcp/81'] };
  await registry.putService(mq, 'file');
  // The same again, and one that is exposed nowhere, change nothing.
  await registry.putService(mq, 'file');
  await registry.putService({ ...mq, name: 'db' }, 'file');
  expect(await lines()).toEqual([
    'expose site-b mq tcp/80',
    'unexpose site-a mq tcp/80',
    'unexpose site-b mq tcp/80',
    'expose site-a mq tcp/81',
    'expose site-b mq tcp/81',
  ]);
});

test('each machine writes what any of them changes, also while both change it', async () => {
  await using there = await Registry.open(store);
  const otherPath = join(directory, 'other.jsonl');
  const other = await AuditTrail.open({ path: otherPath });
  other.follow(there);
  await Promise.all([
    registry.expose({ service: 'db', site: 'site-a' }, 'admin'),
    there.expose({ service: 'db', site: 'site-b' }, 'admin'),
  ]);
  await there.unexpose({ service: 'db', site: 'site-a' }, 'admin');
  await other.close();
  const expected = [
    'expose site-a db tcp/80',
    'expose site-b db tcp/80',
    'unexpose site-a db tcp/80',
  ];
  expect(await lines()).toEqual(expected);
  expect(linesOf(otherPath)).toEqual(expected);
});
