/**
 * The operations of a cloud gateway, called over its socket by the client. The last test fails if the table has an
 * operation that none of the others has called with success.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type AdminAnswer,
  type AdminCall,
  AdminClient,
  type CallOf,
  CLOUD_OPERATIONS,
  type CloudOperations,
} from '../../src/admin/index.ts';
import { parseSchema, type Schema } from '../../src/base/schema.ts';
import type { CloudGateway } from '../../src/gateway/index.ts';
import { METRIC_PREFIX, type MetricFamily, type MetricName } from '../../src/observe/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { desired, Gateways, Hosts, LAN, SERVICE } from '../gateway/scene.ts';

const DAY_S = 86_400;
const CAMERA = { site: 'site-b', address: '10.0.0.7', ports: ['tcp/554'] };

const directory = mkdtempSync(join(tmpdir(), 'vp-admin-'));
const socketPath = join(directory, 'admin.sock');
const gateways = new Gateways();
const hosts = new Hosts();
const called = new Set<string>();
const client = new AdminClient({ socketPath });
let cloud: CloudGateway;

beforeAll(async () => {
  cloud = await gateways.cloud({
    adminSocket: socketPath,
    desired: desired('site-a', 'site-b'),
    reload: async () => ({ needRestart: ['dns'] }),
  });
  const token = await cloud.createToken({ site: 'site-a' });
  const edge = await gateways.edge({ token, device: hosts.device });
  await edge.ready({ signal: AbortSignal.timeout(60_000) });
});
afterAll(async () => {
  await gateways.close();
  rmSync(directory, { recursive: true });
});

/** Calls an operation, and checks that the answer is what the table says. */
async function call<K extends keyof CloudOperations>(
  name: K,
  parts: AdminCall<CallOf<CloudOperations[K]>>,
  gateway: AdminClient = client
): Promise<AdminAnswer<CallOf<CloudOperations[K]>>> {
  const answer = await gateway.call(name, parts);
  const { result: schema } = CLOUD_OPERATIONS[name] as { readonly result?: Schema<unknown> };
  if (schema === undefined) expect(answer.result).toBeUndefined();
  else parseSchema(schema, answer.result);
  called.add(name);
  return answer;
}

describe('sites', () => {
  const site = 'site-c';

  test('are added, read, changed on a condition, listed and deleted', async () => {
    const params = { site };
    const body = { ...LAN, zone: 'c.test' };
    const added = await call('putSite', { params, body, expect: 'absent' });
    expect(added.result).toMatchObject({ name: site, ...body, owner: 'admin' });
    const read = await call('getSite', { params });
    expect(read).toEqual(added);
    await expect(call('putSite', { params, body, expect: 'absent' })).rejects.toMatchObject({
      problem: { status: 412, code: 'ERR_PRESENCE_VERSION_MISMATCH' },
    });
    const changed = await call('putSite', {
      params,
      body: { ...body, mtu: 1400 },
      expect: read.version!,
    });
    expect(changed.version).not.toBe(read.version);
    await expect(call('deleteSite', { params, expect: read.version! })).rejects.toMatchObject({
      problem: { status: 412, remedy: expect.any(String) },
    });
    expect((await call('listSites', {})).result.items.map(({ name }) => name)).toEqual([
      'cloud',
      'site-a',
      'site-b',
      site,
    ]);
    await call('deleteSite', { params, expect: changed.version! });
    await expect(call('getSite', { params })).rejects.toMatchObject({ problem: { status: 404 } });
  });

  test('are listed in pages', async () => {
    const names: string[] = [];
    let cursor: string | undefined;
    do {
      const { result } = await call('listSites', { query: { limit: 2, cursor } });
      expect(result.items.length).toBeLessThanOrEqual(2);
      names.push(...result.items.map(({ name }) => name));
      cursor = result.next;
    } while (cursor !== undefined);
    expect(names).toEqual(['cloud', 'site-a', 'site-b']);
  });

  test('of the file are not changed', async () => {
    const params = { site: 'site-a' };
    const body = { ...LAN, mtu: 1400 };
    await expect(call('putSite', { params, body })).rejects.toMatchObject({
      problem: { status: 409, detail: 'the site "site-a" is kept by the file; change it there' },
    });
    await expect(call('deleteSite', { params })).rejects.toMatchObject({
      problem: { status: 409 },
    });
  });

  test('that others need are not deleted', async () => {
    const params = { site: 'site-c' };
    await call('putSite', { params, body: LAN });
    await call('putService', { params: { service: 'lamp' }, body: { ...CAMERA, site: 'site-c' } });
    await expect(call('deleteSite', { params })).rejects.toMatchObject({
      problem: { status: 409 },
    });
    await call('deleteService', { params: { service: 'lamp' } });
    await call('deleteSite', { params });
  });
});

describe('services and exposures', () => {
  test('are added, read, listed and deleted', async () => {
    const params = { service: 'camera' };
    const service = await call('putService', { params, body: CAMERA });
    expect(await call('getService', { params })).toEqual(service);
    const services = await call('listServices', { query: { site: 'site-b' } });
    expect(services.result.items).toEqual([{ name: 'camera', ...CAMERA, owner: 'admin' }]);

    const both = { site: 'site-a', service: 'camera' };
    const exposure = await call('putExposure', { params: both, body: { dnsName: 'eye' } });
    expect(exposure.result).toEqual({ ...both, dnsName: 'eye', owner: 'admin' });
    expect(await call('getExposure', { params: both })).toEqual(exposure);
    const { items } = (await call('listExposures', { query: { site: 'site-a' } })).result;
    expect(items.map(({ service: name }) => name)).toEqual(['bus', 'camera']);
    const ofBus = await call('listExposures', { query: { service: 'bus', limit: 1 } });
    expect(ofBus.result).toMatchObject({ items: [{ site: 'site-a' }], next: 'site-a/bus' });

    await expect(call('deleteService', { params })).rejects.toMatchObject({
      problem: { status: 409 },
    });
    await call('deleteExposure', { params: both, expect: exposure.version! });
    await expect(call('deleteExposure', { params: both })).rejects.toMatchObject({
      problem: { status: 404 },
    });
    await call('deleteService', { params });
  });

  test('are exposed by labels', async () => {
    const params = { selector: 'all-bus' };
    const body = { service: 'bus', siteSelector: { tier: 'edge' } };
    const selector = await call('putSelector', { params, body });
    expect(selector.result).toEqual({ name: 'all-bus', ...body, owner: 'admin' });
    expect(await call('getSelector', { params })).toEqual(selector);
    expect((await call('listSelectors', {})).result.items).toEqual([selector.result]);
    await call('deleteSelector', { params });
    await expect(call('getSelector', { params })).rejects.toMatchObject({
      problem: { status: 404 },
    });
  });

  test('are replaced as a whole', async () => {
    const lamp = { name: 'lamp', ...CAMERA };
    const body = { services: [lamp, { ...lamp, name: 'lamp-2' }] };
    const counts = { sites: 0, services: 2, exposures: 0 };
    const { result } = await call('putDesired', { body });
    expect(result).toEqual({ ...counts, written: 2, removed: 0 });
    const all = (await call('getDesired', {})).result.services.map(({ name }) => name);
    expect(all).toEqual(['bus', 'lamp', 'lamp-2']);
    const read = async (owner: 'admin' | 'file') =>
      (await call('getDesired', { query: { owner } })).result;
    const own = await read('admin');
    expect(own).toEqual({ sites: [], services: body.services, exposures: [] });
    expect((await call('putDesired', { body: own })).result).toEqual({
      ...counts,
      written: 0,
      removed: 0,
    });
    const wrong = [lamp, { ...lamp, name: 'lamp-2', address: '10.0.0' }];
    await expect(call('putDesired', { body: { services: wrong } })).rejects.toMatchObject({
      problem: { status: 400, path: 'services[1].address' },
    });
    await expect(call('putDesired', { body: await read('file') })).rejects.toMatchObject({
      problem: { status: 409, path: 'sites[0]', code: 'ERR_PRESENCE_CONFLICT' },
    });
    expect((await call('putDesired', { body: { services: [lamp] } })).result).toMatchObject({
      written: 0,
      removed: 1,
    });
    await call('putDesired', { body: {} });
    expect((await call('getDesired', {})).result.services).toEqual([
      { ...SERVICE, ports: ['udp/7'] },
    ]);
  });

  test('that are not there fail on a condition, and are not found without one', async () => {
    const [site, service, selector] = ['site-x', 'service-x', 'selector-x'];
    const deletions = (parts: { readonly expect?: string }): Promise<unknown>[] => [
      call('deleteSite', { params: { site }, ...parts }),
      call('deleteService', { params: { service }, ...parts }),
      call('deleteExposure', { params: { site, service }, ...parts }),
      call('deleteSelector', { params: { selector }, ...parts }),
    ];
    for (const deleting of deletions({})) {
      await expect(deleting).rejects.toMatchObject({ problem: { status: 404 } });
    }
    for (const expected of ['present', 'A'.repeat(16)]) {
      for (const deleting of deletions({ expect: expected })) {
        await expect(deleting).rejects.toMatchObject({ problem: { status: 412 } });
      }
      const putting = call('putSite', { params: { site }, body: LAN, expect: expected });
      await expect(putting).rejects.toMatchObject({ problem: { status: 412 } });
    }
  });

  test('answer with the version that was written, also if another change follows at once', async () => {
    const params = { service: 'camera' };
    const [first, second] = await Promise.all(
      ['10.0.0.7', '10.0.0.8'].map((address) =>
        call('putService', { params, body: { ...CAMERA, address } })
      )
    );
    expect([first!.result.address, second!.result.address]).toEqual(['10.0.0.7', '10.0.0.8']);
    expect(first!.version).not.toBe(second!.version);
    const both = await Promise.allSettled(
      ['10.0.0.9', '10.0.0.10'].map((address) =>
        call('putService', { params, body: { ...CAMERA, address }, expect: second!.version! })
      )
    );
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    await call('deleteService', { params });
  });
});

describe('trust', () => {
  test('tokens are made, listed without their secret, and deleted', async () => {
    const body = { site: 'site-b', lifetimeSeconds: DAY_S };
    const { token } = (await call('createToken', { body })).result;
    const { items } = (await call('listTokens', { query: { site: 'site-b' } })).result;
    expect(items).toMatchObject([{ site: 'site-b', state: 'valid' }]);
    expect(token).not.toContain(JSON.stringify(items));
    const params = { token: items[0]!.id };
    expect((await call('deleteToken', { params })).result).toEqual(items[0]);
    await expect(call('deleteToken', { params })).rejects.toMatchObject({
      problem: { status: 404 },
    });
    await expect(gateways.edge({ token }).then((edge) => edge.ready())).rejects.toThrow(/token/);
  });

  test('a certificate that is not there is not revoked', async () => {
    await expect(call('revoke', { body: { serial: '5f' } })).rejects.toMatchObject({
      problem: { status: 404, detail: 'no certificate has serial "5f"' },
    });
  });

  test('a site is revoked and reinstated', async () => {
    const { result } = await call('revoke', { body: { site: 'site-b', reason: 'keyCompromise' } });
    expect(result).toMatchObject({ scope: { site: 'site-b' }, tunnelsClosed: 0 });
    const { items } = (await call('listRevocations', {})).result;
    expect(items).toMatchObject([{ site: 'site-b', reason: 'keyCompromise' }]);
    await expect(call('createToken', { body: { site: 'site-b' } })).rejects.toMatchObject({
      problem: { status: 409, detail: /reinstate/ },
    });
    await call('reinstate', { params: { site: 'site-b' } });
    expect((await call('listRevocations', {})).result.items).toEqual([]);
  });

  test('the CA is replaced step by step', async () => {
    const before = (await call('getCa', {})).result;
    expect(before).toMatchObject({ rollover: 'none', outdated: { count: 0 } });
    await expect(call('rollCa', { body: { step: 'activate' } })).rejects.toMatchObject({
      problem: { status: 409 },
    });
    const prepared = (await call('rollCa', { body: { step: 'prepare' } })).result;
    expect(prepared.next!.spki).not.toBe(before.current.spki);
    expect(prepared.current).toEqual(before.current);
    const bundle = (await call('getTrustBundle', {})).result;
    expect(bundle.match(/BEGIN CERTIFICATE/g)!.length).toBeGreaterThan(1);
    expect((await call('getCrl', {})).result).toContain('BEGIN X509 CRL');
  });
});

describe('what is in force', () => {
  test('is read: status, presences, paths, whois, lookup', async () => {
    const { sites } = (await call('getStatus', {})).result;
    expect(sites.map(({ name, edge }) => [name, edge !== undefined])).toEqual([
      ['cloud', false],
      ['site-a', true],
      ['site-b', false],
    ]);
    const one = (await call('getStatus', { query: { site: 'site-a' } })).result;
    expect(one.sites).toMatchObject([{ name: 'site-a', edge: {}, verdicts: {} }]);
    await expect(call('getStatus', { query: { site: 'site-x' } })).rejects.toMatchObject({
      problem: { status: 404, detail: 'there is no site "site-x"' },
    });
    const { items } = (await call('listPresences', { query: { site: 'site-a' } })).result;
    expect(items).toMatchObject([{ realm: 'site-a', of: { realm: 'cloud', address: '10.0.0.5' } }]);
    const { address } = items[0]!;
    const everywhere = (await call('listPresences', { query: { limit: 1 } })).result;
    expect(everywhere.items).toEqual(items);
    const rest = await call('listPresences', { query: { cursor: everywhere.next } });
    expect(rest.result).toMatchObject({ items: [{ realm: 'site-b' }] });

    const whois = { site: 'site-a', address };
    expect((await call('whois', { query: whois as never })).result).toEqual({
      site: 'cloud',
      address: '10.0.0.5',
      services: ['bus'],
    });
    await expect(
      call('whois', { query: { ...whois, address: '10.0.0.9' } as never })
    ).rejects.toMatchObject({ problem: { status: 404 } });
    const found = await call('lookup', { query: { name: 'bus', site: 'site-a' } });
    expect(found.result.hosts).toMatchObject([{ addresses: [address], ports: ['udp/7'] }]);
    expect((await call('listPaths', { query: { site: 'site-b' } })).result).toEqual({ items: [] });
  });

  test('is changed: clients released, a site moved, the configuration read again', async () => {
    const released = await call('releaseClients', { params: { site: 'site-a' } });
    expect(released.result).toEqual({ released: 0 });
    await call('moveSite', { body: { site: 'site-a', worker: 0 } });
    expect((await call('reload', {})).result).toEqual({ needRestart: ['dns'] });
  });

  test('is described by a document', async () => {
    const { result } = await call('getDocument', {});
    expect(result).toMatchObject({ openapi: '3.1.0' });
  });
});

test('a flow and a packet are explained', async () => {
  const flow = { from: { site: 'site-a' }, to: 'bus' };
  const { result } = await call('explain', { body: flow });
  expect(result).toMatchObject({ from: 'site-a', to: 'cloud', protocol: 'udp' });
  expect(result.stages.find(({ name }) => name === 'permission')!.outcome).toBe('ok');
  const unknown = await call('explain', { body: { ...flow, to: 'buss' } });
  expect(unknown.result).toMatchObject({ passes: false, droppedAt: 'destination' });
  expect(unknown.result.stages[0]!.reason).toMatch(/bus/);
  const bytes = await call('explain', { body: { from: { site: 'site-a' }, packet: '45 00' } });
  expect(bytes.result.passes).toBe(false);
  await expect(
    call('explain', { body: { ...flow, from: { site: 'nowhere' } } })
  ).rejects.toMatchObject({ problem: { status: 400 } });
});

test('the round-trip time of a tunnel is measured', async () => {
  const body = { count: 2, intervalMs: 0, timeoutMs: 10_000 };
  const { result } = await call('ping', { params: { site: 'site-a' }, body });
  expect(result).toMatchObject({ site: 'site-a', sent: 2, received: 2 });
  await expect(call('ping', { params: { site: 'site-b' }, body })).rejects.toMatchObject({
    problem: { status: 503 },
  });
});

test('packets are captured', async () => {
  const { result } = await call('lookup', { query: { name: 'bus', site: 'site-a' } });
  const stream = await client.stream('capture', { body: { to: { service: 'bus' } } });
  called.add('capture');
  const iterator = stream[Symbol.asyncIterator]();
  const chunks = [Buffer.from((await iterator.next()).value!)];
  // A pcapng file begins with a section header block.
  expect(chunks[0]!.toString('hex')).toMatch(/^0a0d0d0a/);
  while (!Buffer.concat(chunks).includes('a captured packet')) {
    hosts.send({
      source: '10.0.0.9',
      sourcePort: 40_000,
      destination: result.hosts[0]!.addresses[0]!,
      destinationPort: 7,
      payload: Buffer.from('a captured packet'),
    });
    chunks.push(Buffer.from((await iterator.next()).value!));
  }
  await iterator.return!();
});

describe('machines', () => {
  const site = 'site-a';

  /** Starts a machine, whose name is that of its socket. */
  async function startMachine(shared: MemoryStore, name: string, ttlMs = 10_000) {
    const path = join(directory, `${name}.sock`);
    const started = await gateways.machine(shared, name, { adminSocket: path, ttlMs });
    return { ...started, path, ask: new AdminClient({ socketPath: path }) };
  }

  test('are listed, drained, resumed and removed, and sites move from one to another', async () => {
    const shared = new MemoryStore();
    const one = await startMachine(shared, 'one');
    const two = await startMachine(shared, 'two');
    await one.cloud.apply(desired(site));
    const edge = await gateways.edge({ token: await one.cloud.createToken({ site }) });
    await edge.ready({ signal: AbortSignal.timeout(60_000) });
    const { result: listed } = await call('listMachines', {}, one.ask);
    const own = { name: 'one', state: 'attached', isDraining: false, isController: true };
    expect(listed.machine).toEqual(own);
    const live = { isLive: true, isDraining: false, endpoints: [{ host: '127.0.0.1' }] };
    expect(listed.machines).toMatchObject([
      { ...live, name: 'one', sites: 1, isController: true },
      { ...live, name: 'two', sites: 0, isController: false },
    ]);
    const statusAt = async ({ ask }: typeof one) =>
      (await call('getStatus', { query: { site } }, ask)).result;
    const before = await statusAt(one);
    expect(before).toMatchObject({ machine: own, sites: [{ machine: 'one', edge: {} }] });

    await call('moveSite', { body: { site, machine: 'two' } }, one.ask);
    const atTwo = { sites: [{ machine: 'two', edge: {} }] };
    await expect.poll(() => statusAt(two), { timeout: 60_000 }).toMatchObject(atTwo);
    expect((await statusAt(two)).sites[0]!.epoch).toBeGreaterThan(before.sites[0]!.epoch!);
    const at = async ({ cloud: machine }: typeof one) => valuesOf(await machine.metrics());
    expect(await at(one)).toEqual({ live: 2, attached: 1, controller: 1, held: 0, up: undefined });
    expect(await at(two)).toEqual({ live: 2, attached: 1, controller: 0, held: 1, up: 1 });
    // A site that is there already is left there.
    await call('moveSite', { body: { site, machine: 'two' } }, one.ask);
    const back = call('moveSite', { body: { site, machine: 'one' } }, one.ask);
    await expect(back).rejects.toMatchObject({
      problem: { status: 409, detail: /machine "two" holds "site-a"/ },
    });

    const params = { machine: 'two' };
    for (const name of ['drainMachine', 'resumeMachine'] as const) {
      await expect(call(name, { params }, one.ask)).rejects.toMatchObject({
        problem: { status: 409, detail: /^this is machine "one"; (drain|resume) "two" at its own/ },
      });
    }
    const drained = await call('drainMachine', { params }, two.ask);
    expect(drained.result).toEqual({ handedOver: 1, kept: [] });
    const { machines } = (await call('listMachines', {}, one.ask)).result;
    expect(machines).toMatchObject([{ sites: 1 }, { sites: 0, isDraining: true }]);
    expect(two.cloud.readiness()).toMatchObject({ reasons: [{ subject: 'machine' }] });
    await expect(
      call('moveSite', { body: { site, machine: 'two' } }, one.ask)
    ).rejects.toMatchObject({ problem: { status: 409, detail: /takes no sites/ } });
    await call('resumeMachine', { params }, two.ask);
    expect(two.cloud.readiness()).toEqual({ ready: true, reasons: [] });

    await expect(call('removeMachine', { params }, one.ask)).rejects.toMatchObject({
      problem: { status: 409, detail: /is alive/ },
    });
    await two.cloud.close();
    // The machine may have been cut off, so that the revocation waits for it.
    const revoked = await call('revoke', { body: { site: 'site-z' } }, one.ask);
    const unconfirmed = [{ machine: 'two', fencedBy: expect.stringMatching(/Z$/) }];
    expect(revoked.result).toMatchObject({ confirmed: ['one'], unconfirmed });
    expect(await statusOfRevocation(one.path)).toBe(202);
    await call('removeMachine', { params }, one.ask);
    expect((await call('listMachines', {}, one.ask)).result.machines).toHaveLength(1);
    expect(await statusOfRevocation(one.path)).toBe(201);
    await expect(call('removeMachine', { params }, one.ask)).rejects.toMatchObject({
      problem: { status: 404 },
    });
    await expect(call('drainMachine', { params }, one.ask)).rejects.toMatchObject({
      problem: { status: 404 },
    });
  });

  test('say when they do not reach the store, and when they were removed meanwhile', async () => {
    const shared = new MemoryStore();
    const { ask: rest } = await startMachine(shared, 'rest');
    const { cloud: machine, store, ask } = await startMachine(shared, 'cut', 1000);
    store.disconnect();
    const own = async () => (await call('listMachines', {}, ask)).result.machine;
    await expect.poll(async () => (await own()).state, { timeout: 60_000 }).toBe('detached');
    const { detachedSince, stopsAt } = await own();
    expect(Date.parse(stopsAt!) - Date.parse(detachedSince!)).toBeCloseTo(3_600_000, -1);
    expect(valuesOf(await machine.metrics())).toMatchObject({ attached: 0, controller: 0 });
    expect(machine.readiness().reasons).toContainEqual(
      expect.objectContaining({ subject: 'machine' })
    );
    const body = { ...LAN, zone: 'x.test' };
    await expect(call('putSite', { params: { site }, body }, ask)).rejects.toMatchObject({
      problem: { status: 503, code: 'ERR_PRESENCE_STORE_UNAVAILABLE', remedy: /repeat/ },
    });
    const removed = () => call('removeMachine', { params: { machine: 'cut' } }, rest);
    await expect
      .poll(() => removed().then(() => 'removed', String), { timeout: 60_000 })
      .toBe('removed');
    store.reconnect();
    await expect.poll(async () => (await own()).state, { timeout: 60_000 }).toBe('removed');
    const message = expect.stringMatching(/^cut was removed from the cloud/);
    expect(machine.readiness().reasons).toContainEqual({ subject: 'machine', message });
  });

  test('are unknown to a gateway that is the only one of its cloud', async () => {
    const params = { machine: 'one' };
    const calls = [
      call('listMachines', {}),
      call('drainMachine', { params }),
      call('resumeMachine', { params }),
      call('removeMachine', { params }),
      call('moveSite', { body: { site, machine: 'one' } }),
    ];
    for (const each of calls) {
      await expect(each).rejects.toMatchObject({
        problem: { status: 409, detail: /the only one of its cloud/ },
      });
    }
  });
});

/** Returns what the metrics say of machines, and whether they have a tunnel. */
function valuesOf(families: readonly MetricFamily[]): Record<string, unknown> {
  const of = (name: MetricName): unknown => {
    const samples = families.find((each) => each.name === METRIC_PREFIX + name)?.samples ?? [];
    return samples[0] && 'value' in samples[0] ? samples[0].value : undefined;
  };
  return {
    live: of('machines'),
    attached: of('machine_attached'),
    controller: of('controller'),
    held: of('sites_held'),
    up: of('tunnel_up'),
  };
}

/** Returns the status of the answer to a revocation. */
async function statusOfRevocation(path: string): Promise<number | undefined> {
  const sending = request({ socketPath: path, method: 'POST', path: '/v1/revocations' });
  sending.end('{"site":"site-z"}');
  const [response] = (await once(sending, 'response')) as [IncomingMessage];
  response.resume();
  return response.statusCode;
}

test('each operation of the table was called with success', () => {
  const missing = Object.keys(CLOUD_OPERATIONS).filter((name) => !called.has(name));
  expect(missing).toEqual([]);
});
