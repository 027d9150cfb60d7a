/**
 * The parts of a pool: placement, access and RPC, without processes.
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { beforeAll, describe, expect, test } from 'vitest';
import { ConfigError, EnrolmentError, PoolExhaustedError } from '../../src/errors.ts';
import { CertificateAuthority, MemoryStore, PresenceError } from '../../src/index.ts';
import {
  createSigningRequest,
  generateCa,
  generateGatewayKey,
  identityOfCertificate,
} from '../../src/pki/index.ts';
import { spkiHashOfCertificate } from '../../src/pki/keys.ts';
import { Access, type AccessChange } from '../../src/worker/access.ts';
import { Placement } from '../../src/worker/placement.ts';
import { type Notifications, Rpc, type RpcPort } from '../../src/worker/rpc.ts';

describe('Placement', () => {
  test('places a site at the worker with the fewest sites, and keeps it there', () => {
    const placement = new Placement(2);
    expect(['a', 'b', 'c', 'a'].map((site) => placement.holderOf(site))).toEqual([0, 1, 0, 0]);
    expect(placement.sites()).toEqual([['a', 'c'], ['b']]);
    placement.move('a', 1);
    expect(placement.holderOf('a')).toBe(1);
    expect(placement.holderOf('d')).toBe(0);
    placement.forget('c');
    expect(placement.holderOf('e')).toBe(0);
    placement.forget('nowhere');
    expect(placement.holderOf('f')).toBe(0);
    expect(placement.sites()).toEqual([
      ['d', 'e', 'f'],
      ['b', 'a'],
    ]);
  });
});

describe('Access', () => {
  const certificates = new Map<string, X509Certificate>();
  const revoked = new Set<string>();
  const revokedKeys = new Set<string>();
  let retiredCa: string;
  beforeAll(async () => {
    const trustDomain = 'openstack.test';
    const authority = await CertificateAuthority.open({
      ...generateCa({ trustDomain }),
      trustDomain,
      store: new MemoryStore(),
    });
    for (const site of [
      'site-a',
      'site-b',
      'site-c',
      'site-d',
      'site-r',
      'site-a again',
      'site-a with a stolen key',
    ]) {
      const identity = { trustDomain, role: 'site', site: site.split(' ')[0]! } as const;
      const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
      const { certificatePem, serial } = await authority.issue(csrPem, identity);
      certificates.set(site, new X509Certificate(certificatePem));
      if (site === 'site-a again') revoked.add(serial);
      // Another certificate on this key was revoked.
      if (site === 'site-a with a stolen key') {
        revokedKeys.add(spkiHashOfCertificate(certificates.get(site)!));
      }
    }
    const old = await CertificateAuthority.open({
      ...generateCa({ trustDomain }),
      trustDomain,
      store: new MemoryStore(),
    });
    const identity = { trustDomain, role: 'site', site: 'site-a' } as const;
    const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
    const { certificatePem } = await old.issue(csrPem, identity);
    certificates.set('site-a by a retired CA', new X509Certificate(certificatePem));
    retiredCa = old.certificatePem;
  });
  const access = () =>
    accessOf({
      holders: new Map([
        ['site-a', 0],
        ['site-b', 1],
        ['site-d', 2],
      ]),
      // Two ports that are not consecutive; worker 2 has not reported its port yet.
      ports: new Map([
        [0, 7443],
        [1, 40_123],
      ]),
      revocations: {
        sites: new Set(['site-r']),
        serials: revoked,
        spkis: revokedKeys,
      },
      retired: [retiredCa],
    });
  const candidate = (name: string) => {
    const certificate = certificates.get(name)!;
    const identity = identityOfCertificate(certificate);
    return { identity, certificate, remoteAddress: '192.0.2.1' };
  };

  test.each([
    ['site-a', undefined],
    ['site-a again', 'revoked'],
    ['site-a with a stolen key', 'revoked'],
    ['site-a by a retired CA', 'untrusted'],
    ['site-r', 'revoked'],
    ['site-b', 'moved'],
    ['site-d', 'shutdown'],
    ['site-c', 'unknown-site'],
  ])('answers for the certificate of %s at worker 0: %s', (name, code) => {
    expect(access().refusalOf(candidate(name), 0)?.code).toBe(code);
  });

  test('refuses a site with the name of the cloud', () => {
    const cloud = { trustDomain: 'openstack.test', role: 'site', site: 'cloud' } as const;
    const named = { ...candidate('site-a'), identity: cloud };
    expect(access().refusalOf(named, 0)?.code).toBe('unknown-site');
  });

  test('changes what it is told, and keeps the rest', () => {
    const changed = access();
    changed.update({
      holders: new Map([
        ['site-b', 0],
        ['site-a', undefined],
      ]),
    });
    expect(changed.refusalOf(candidate('site-b'), 0)).toBeUndefined();
    expect(changed.refusalOf(candidate('site-a'), 0)?.code).toBe('unknown-site');
    expect(changed.refusalOf(candidate('site-d'), 0)?.code).toBe('shutdown');
    changed.update({ retired: [] });
    changed.update({ holders: new Map([['site-a', 0]]) });
    expect(changed.refusalOf(candidate('site-a by a retired CA'), 0)).toBeUndefined();
    expect(changed.refusalOf(candidate('site-a again'), 0)?.code).toBe('revoked');
  });

  test('takes over changes of the revocations, and leaves the given table as it is', () => {
    const revocations = { sites: new Set(['site-r']), serials: revoked, spkis: revokedKeys };
    const changed = accessOf({ holders: new Map([['site-a', 0]]), revocations });
    const codeOf = (name: string) => changed.refusalOf(candidate(name), 0)?.code;
    const sites = new Map([
      ['site-a', true],
      ['site-r', false],
    ]);
    changed.update({ revocationChanges: { sites, serials: [], spkis: [] } });
    expect(['site-a', 'site-a again', 'site-r'].map(codeOf)).toEqual([
      'revoked',
      'revoked',
      'unknown-site',
    ]);
    changed.update({
      revocationChanges: {
        sites: new Map([['site-a', false]]),
        serials: [certificates.get('site-a')!.serialNumber.toLowerCase()],
        spkis: [],
      },
    });
    expect(codeOf('site-a')).toBe('revoked');
    expect([...revocations.sites]).toEqual(['site-r']);
    expect(revoked.size).toBe(1);
    changed.update({ revocations });
    expect(['site-a', 'site-r'].map(codeOf)).toEqual([undefined, 'revoked']);
  });

  test('names the port of the worker that holds the site', () => {
    expect(access().refusalOf(candidate('site-b'), 0)?.endpoint).toEqual({ port: 40_123 });
    expect(access().refusalOf(candidate('site-a'), 1)?.endpoint).toEqual({ port: 7443 });
  });

  test('knows how many sites each worker has, also before the workers have reported their ports', () => {
    const holders = new Map([1, 2, 3, 4, 5].map((i) => [`site-${i}`, i % 2]));
    const access = accessOf({ holders });
    expect(access.sitesPerWorker).toBe(5);
    access.update({
      ports: new Map([
        [0, 7443],
        [1, 7444],
      ]),
    });
    expect(access.sitesPerWorker).toBe(2.5);
    access.update({ holders: new Map([['site-1', undefined]]) });
    expect(access.sitesPerWorker).toBe(2);
    expect(new Access().sitesPerWorker).toBe(0);
  });
});

function accessOf(change: AccessChange): Access {
  const access = new Access();
  access.update(change);
  return access;
}

interface Adder {
  add(a: number, b: number): Promise<number>;
  note(text: unknown): void;
  noted(): Promise<string[]>;
}
const NOTIFICATIONS: Notifications<Adder> = { note: true };

/** Returns two ends of a channel, which delivers clones in order, in a later turn. */
function ports(): [RpcPort, RpcPort] {
  const ends = [new EventEmitter(), new EventEmitter()] as const;
  const port = (own: number): RpcPort => ({
    send: (message) => {
      const clone: unknown = structuredClone(message);
      setImmediate(() => ends[1 - own]!.emit('message', clone));
      return true;
    },
    on: (event, listener) => ends[own]!.on(event, listener),
  });
  return [port(0), port(1)];
}

const connect = (port: RpcPort): Rpc<Adder> => new Rpc<Adder>(port, NOTIFICATIONS);

/** Returns the error of a call for which the other side throws `error`. */
async function thrownAcross(error: Error): Promise<unknown> {
  const [localEnd, remoteEnd] = ports();
  connect(remoteEnd).serve({
    add: () => {
      throw error;
    },
  });
  return connect(localEnd)
    .remote.add(1, 2)
    .catch((fault) => fault);
}

describe('Rpc', () => {
  test('delivers calls in their order, and returns results', async () => {
    const [localEnd, remoteEnd] = ports();
    const done: string[] = [];
    connect(remoteEnd).serve({
      add: async (a: number, b: number) => {
        done.push(`add ${a} ${b}`);
        return a + b;
      },
      note: (text: string) => void done.push(text),
      noted: async () => done,
    });
    const { remote } = connect(localEnd);
    remote.note('first');
    const sums = [remote.add(1, 2), remote.add(3, 4)];
    remote.note('last');
    expect(await Promise.all(sums)).toEqual([3, 7]);
    remote.note('end');
    expect(await remote.noted()).toEqual(['first', 'add 1 2', 'add 3 4', 'last', 'end']);
  });

  test('begins a call in the turn in which it arrives, also while an earlier one waits', async () => {
    const [localEnd, remoteEnd] = ports();
    let finish = () => {};
    connect(remoteEnd).serve({
      add: (a: number, b: number) =>
        a === 0 ? new Promise((resolve) => (finish = () => resolve(b))) : finish(),
    });
    const { remote } = connect(localEnd);
    const waiting = remote.add(0, 7);
    await remote.add(1, 1);
    expect(await waiting).toBe(7);
  });

  test('rejects with the error that was thrown', async () => {
    expect(await thrownAcross(new Error('too many'))).toMatchObject({ message: 'too many' });
  });

  test('preserves code, message and fields of an error, but not its class', async () => {
    for (const error of [
      new PoolExhaustedError('pool 192.0.2.0/30 exhausted: 2 of 2 addresses bound'),
      new ConfigError('device.name', 'no such interface'),
      new EnrolmentError('used', 'the token is used'),
    ]) {
      const fault = await thrownAcross(error);
      expect(fault).toBeInstanceOf(PresenceError);
      const { message, stack } = error;
      expect(fault).toMatchObject({ ...error, message, stack });
    }
    const busy = Object.assign(new Error('address in use'), { code: 'EADDRINUSE', errno: -98 });
    const fault = await thrownAcross(busy);
    expect(fault).not.toBeInstanceOf(PresenceError);
    expect(fault).toMatchObject({ code: 'EADDRINUSE', errno: -98, message: 'address in use' });
  });

  test('rejects if the method does not exist, or its result cannot be cloned', async () => {
    const [localEnd, remoteEnd] = ports();
    connect(remoteEnd).serve({ add: () => () => {} });
    const { remote } = connect(localEnd);
    await expect(remote.noted()).rejects.toMatchObject({ code: 'ERR_PRESENCE_API_MISUSE' });
    await expect(remote.add(1, 2)).rejects.toThrow(/could not be cloned/);
  });

  test('is not a promise, so that an async function can return it', async () => {
    const [localEnd] = ports();
    const { remote } = connect(localEnd);
    expect(await (async () => remote)()).toBe(remote);
  });

  test('throws if a notification cannot be cloned, and sends the next one', () => {
    const sent: unknown[] = [];
    const port: RpcPort = {
      send: (message) => {
        sent.push(structuredClone(message));
        return true;
      },
      on: () => {},
    };
    const { remote } = connect(port);
    // An edge can send this; Node's channel between processes fails at a few thousand levels.
    const deep = JSON.parse('['.repeat(60_000) + ']'.repeat(60_000)) as string;
    expect(() => remote.note(deep)).toThrow(RangeError);
    remote.note('next');
    expect(sent).toEqual([{ name: 'note', args: ['next'] }]);
  });

  test('rejects waiting and later calls when the other side has ended', async () => {
    const [localEnd] = ports();
    const rpc = connect(localEnd);
    const waiting = rpc.remote.add(1, 2);
    rpc.close('it has ended');
    await expect(waiting).rejects.toThrow('it has ended');
    await expect(rpc.remote.add(1, 2)).rejects.toThrow('it has ended');
    expect(() => rpc.remote.note('dropped')).not.toThrow();
  });
});
