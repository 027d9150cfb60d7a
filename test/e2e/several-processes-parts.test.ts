/**
 * The parts by which the cloud gateway's processes are held together, without processes.
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { beforeAll, describe, expect, test } from 'vitest';
import { accessBy, refusalOf } from '../../examples/cloud-gateway/access.ts';
import { Placement } from '../../examples/cloud-gateway/placement.ts';
import { Wire, type WirePort } from '../../examples/cloud-gateway/wire.ts';
import {
  CertificateAuthority,
  createSigningRequest,
  generateGatewayKey,
  identityOfCertificate,
  MemoryStore,
} from '../../src/index.ts';
import { spkiHashOfCertificate } from '../../src/pki/keys.ts';

describe('Placement', () => {
  test('gives a site to the member with the fewest, and keeps it there', () => {
    const placement = new Placement(2);
    expect(['a', 'b', 'c', 'a'].map((site) => placement.holderOf(site))).toEqual([0, 1, 0, 0]);
    expect(placement.sites()).toEqual([['a', 'c'], ['b']]);
    placement.move('a', 1);
    expect(placement.holderOf('a')).toBe(1);
    expect(placement.holderOf('d')).toBe(0);
    placement.forget('c');
    expect(placement.holderOf('e')).toBe(0);
  });
});

describe('refusalOf', () => {
  const certificates = new Map<string, X509Certificate>();
  const revoked = new Set<string>();
  const revokedKeys = new Set<string>();
  let retiredCa: string;
  beforeAll(async () => {
    const trustDomain = 'openstack.test';
    const authority = await CertificateAuthority.create({ trustDomain, store: new MemoryStore() });
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
    const old = await CertificateAuthority.create({ trustDomain, store: new MemoryStore() });
    const identity = { trustDomain, role: 'site', site: 'site-a' } as const;
    const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
    const { certificatePem } = await old.issue(csrPem, identity);
    certificates.set('site-a of before', new X509Certificate(certificatePem));
    retiredCa = old.certificatePem;
  });
  const access = () =>
    accessBy({
      holders: new Map([
        ['site-a', 0],
        ['site-b', 1],
        ['site-d', 2],
      ]),
      // Two that are not one behind the other; member 2 has not said yet which one it took.
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
  const candidate = (who: string) => {
    const certificate = certificates.get(who)!;
    const identity = identityOfCertificate(certificate);
    return { identity, certificate, remoteAddress: '192.0.2.1' };
  };

  test.each([
    ['site-a', undefined],
    ['site-a again', 'revoked'],
    ['site-a with a stolen key', 'revoked'],
    ['site-a of before', 'untrusted'],
    ['site-r', 'revoked'],
    ['site-b', 'moved'],
    ['site-d', 'shutdown'],
    ['site-c', 'unknown-site'],
  ])('at member 0, the certificate of %s: %s', (who, code) => {
    expect(refusalOf(candidate(who), access(), 0)?.code).toBe(code);
  });

  test('no site is called as the cloud is', () => {
    const cloud = { trustDomain: 'openstack.test', role: 'site', site: 'cloud' } as const;
    const named = { ...candidate('site-a'), identity: cloud };
    expect(refusalOf(named, access(), 0)?.code).toBe('unknown-site');
  });

  test('names the port of the member that holds the site', () => {
    expect(refusalOf(candidate('site-b'), access(), 0)?.endpoint).toEqual({ port: 40_123 });
    expect(refusalOf(candidate('site-a'), access(), 1)?.endpoint).toEqual({ port: 7443 });
  });
});

type Adder = { add(a: number, b: number): Promise<number>; note(text: string): void };

/** Two ends; what one sends arrives at the other one in a later turn, in order. */
function ports(): [WirePort, WirePort] {
  const ends = [new EventEmitter(), new EventEmitter()] as const;
  const port = (own: number): WirePort => ({
    send: (message) => setImmediate(() => ends[1 - own]!.emit('message', message)) !== undefined,
    on: (event, listener) => ends[own]!.on(event, listener),
  });
  return [port(0), port(1)];
}

describe('Wire', () => {
  test('brings calls in their order, and answers back', async () => {
    const [near, far] = ports();
    const done: string[] = [];
    new Wire(far, {
      add: async (a: number, b: number) => {
        done.push(`add ${a} ${b}`);
        return a + b;
      },
      note: (text: string) => void done.push(text),
    });
    const wire = new Wire<Adder>(near, {});
    wire.tell('note', 'first');
    const sums = [wire.ask('add', 1, 2), wire.ask('add', 3, 4)];
    wire.tell('note', 'last');
    expect(await Promise.all(sums)).toEqual([3, 7]);
    await wire.ask('note', 'end');
    expect(done).toEqual(['first', 'add 1 2', 'add 3 4', 'last', 'end']);
  });

  test('brings back what was thrown', async () => {
    const [near, far] = ports();
    new Wire(far, {
      add: () => {
        throw new Error('too many');
      },
    });
    await expect(new Wire<Adder>(near, {}).ask('add', 1, 2)).rejects.toThrow('too many');
  });

  test('throws to who tells what cannot be told, and goes on', () => {
    const told: unknown[] = [];
    const port: WirePort = {
      send: (message) => {
        told.push(structuredClone(message));
        return true;
      },
      on: () => {},
    };
    const wire = new Wire<Adder>(port, {});
    // As an edge can send it: Node's channel between processes ends at a few thousand levels.
    const deep = JSON.parse('['.repeat(60_000) + ']'.repeat(60_000)) as string;
    expect(() => wire.tell('note', deep)).toThrow(RangeError);
    wire.tell('note', 'next');
    expect(told).toEqual([{ name: 'note', args: ['next'] }]);
  });

  test('fails what waits when the other side is gone, and what comes later', async () => {
    const [near] = ports();
    const wire = new Wire<Adder>(near, {});
    const waiting = wire.ask('add', 1, 2);
    wire.close('it has ended');
    await expect(waiting).rejects.toThrow('it has ended');
    await expect(wire.ask('add', 1, 2)).rejects.toThrow('it has ended');
    expect(() => wire.tell('note', 'nobody hears')).not.toThrow();
  });
});
