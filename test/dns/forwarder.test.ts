import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import type { Upstream } from '../../src/dns/forward-rules.ts';
import {
  DnsForwarder,
  DnsListener,
  type Forwarder,
  type ForwardRule,
  SiteResolver,
  type SiteResolverOptions,
  Zone,
} from '../../src/dns/index.ts';
import { ConfigError } from '../../src/errors.ts';
import { refusingUdpPort } from '../support/refusing-port.ts';
import { type Answer, decodeAnswer, LOCAL, query, ZONE, ZONE_DATA } from './scene.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** Serves another zone on a free port of loopback. */
async function startUpstream(): Promise<{ address: string; resolver: SiteResolver }> {
  const zone = Zone.compile({ ...ZONE_DATA, origin: 'example.org', reverse: [], pointers: [] });
  const resolver = new SiteResolver({ zone });
  const listener = await DnsListener.listen({ resolver, listen: '127.0.0.1:0' });
  cleanups.push(() => listener.close());
  return { address: `127.0.0.1:${listener.address.port}`, resolver };
}

/** Opens a socket that answers each query with the datagrams that `reply` returns. */
async function startFake(reply: (query: Buffer) => Buffer[]): Promise<{ address: string }> {
  const socket: Socket = createSocket('udp4');
  socket.on('message', (message, client) => {
    for (const bytes of reply(message)) socket.send(bytes, client.port, client.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  cleanups.push(() => socket.close());
  return { address: `127.0.0.1:${(socket.address() as AddressInfo).port}` };
}

/** An address of loopback where ICMP reports that nobody listens. */
async function deadAddress(): Promise<string> {
  const nobody = await refusingUdpPort();
  cleanups.push(() => nobody.close());
  return `127.0.0.1:${nobody.port}`;
}

function site(upstreams: string[], options: SiteResolverOptions = {}): SiteResolver {
  const resolver = new SiteResolver({
    zone: ZONE,
    forward: [{ suffix: '.', upstreams }],
    ...options,
  });
  cleanups.push(() => resolver.close());
  return resolver;
}

async function ask(
  resolver: SiteResolver,
  name: string,
  type = 'A',
  transport: 'udp' | 'tcp' = 'udp',
  address = LOCAL
): Promise<Answer> {
  return decodeAnswer(await resolver.resolve(query(name, type), transport, address));
}

/** Turns a query into a reply without records. */
function replyTo(message: Buffer, flags = 0x8180): Buffer {
  const reply = Buffer.from(message);
  reply.writeUInt16BE(flags, 2);
  return reply;
}

describe('SiteResolver forwarding', () => {
  test('returns the answer of an upstream with the id of the client and RA set', async () => {
    const { address } = await startUpstream();
    const answer = await ask(site([address]), 'KEYSTONE.example.org');
    expect(answer).toMatchObject({
      id: 0x1234,
      rcode: 'NOERROR',
      flag_ra: true,
      answers: [{ name: 'KEYSTONE.example.org', data: '100.64.0.2' }],
    });
  });

  test('never sends names of its own zones upstream', async () => {
    const { address, resolver: upstream } = await startUpstream();
    const resolver = site([address]);
    for (const [name, type] of [
      ['nova.openstack.test', 'A'],
      ['openstack.test', 'MX'],
      ['7.15.64.100.in-addr.arpa', 'PTR'],
    ] as const) {
      expect(resolver.resolve(query(name, type), 'udp', LOCAL)).toBeInstanceOf(Uint8Array);
    }
    expect((await ask(resolver, 'nova.openstack.test')).flag_ra).toBe(true);
    expect(Object.values(upstream.counters).every((count) => count === 0)).toBe(true);
  });

  test('asks the upstream of the longest suffix that ends at a label', async () => {
    const asked: string[] = [];
    const forwarder: Forwarder = {
      exchange: async (_: unknown, [upstream]: readonly Upstream[]) => {
        asked.push(upstream!.address);
        return undefined;
      },
    };
    const forward: ForwardRule[] = [
      { suffix: '.', upstreams: ['192.0.2.1'] },
      { suffix: 'example.org', upstreams: ['192.0.2.2'] },
      { suffix: 'Corp.Example.ORG.', upstreams: ['192.0.2.3'] },
    ];
    const resolver = new SiteResolver({ forward, forwarder });
    for (const name of [
      'a.corp.example.org',
      'CORP.example.org',
      'xcorp.example.org',
      'example.org',
      'myexample.org',
      'test',
    ]) {
      await ask(resolver, name);
    }
    expect(asked.map((address) => address.at(-1))).toEqual(['3', '3', '2', '2', '1', '1']);
  });

  test('refuses names that no rule covers', async () => {
    const resolver = new SiteResolver({
      forward: [{ suffix: 'example.org', upstreams: ['192.0.2.1'] }],
    });
    expect(await ask(resolver, 'example.com')).toMatchObject({ rcode: 'REFUSED', flag_ra: true });
  });

  test('asks the next upstream when nobody listens at the first', async () => {
    const { address } = await startUpstream();
    const forwarder = new DnsForwarder();
    const resolver = site([await deadAddress(), address], { forwarder });
    expect((await ask(resolver, 'keystone.example.org')).rcode).toBe('NOERROR');
    expect(forwarder.counters).toMatchObject({ udpTries: 2, failedTries: 1 });
  });

  test('asks the next upstream when the first does not answer', async () => {
    const silent = await startFake(() => []);
    const { address } = await startUpstream();
    const resolver = site([silent.address, address], {
      forwarder: new DnsForwarder({ timeoutMs: 50 }),
    });
    expect((await ask(resolver, 'keystone.example.org')).rcode).toBe('NOERROR');
  });

  test.each([
    ['FORMERR', 0x8181],
    ['SERVFAIL', 0x8182],
    ['NOTIMP', 0x8184],
    ['REFUSED', 0x8185],
  ])('asks the next upstream after %s, and returns it after the last', async (rcode, flags) => {
    const helpless = await startFake((message) => [replyTo(message, flags)]);
    const { address } = await startUpstream();
    expect((await ask(site([helpless.address, address]), 'keystone.example.org')).rcode).toBe(
      'NOERROR'
    );
    expect((await ask(site([helpless.address]), 'keystone.example.org')).rcode).toBe(rcode);
  });

  test('accepts NXDOMAIN as an answer', async () => {
    const { address } = await startUpstream();
    const silent = await startFake(() => []);
    expect((await ask(site([address, silent.address]), 'nova.example.org')).rcode).toBe('NXDOMAIN');
  });

  test('answers SERVFAIL when no upstream replies', async () => {
    const resolver = site([await deadAddress(), await deadAddress()]);
    expect(await ask(resolver, 'keystone.example.org')).toMatchObject({
      rcode: 'SERVFAIL',
      flag_aa: false,
      flag_ra: true,
    });
    expect(resolver.counters).toMatchObject({ failed: 1, overloaded: 0, forwarded: 0 });
  });

  test('ignores replies with another id, name or type or without QR, and accepts the right one', async () => {
    const forged = await startFake((message) => {
      const wrongId = replyTo(message);
      wrongId.writeUInt16BE(message.readUInt16BE(0) ^ 1, 0);
      const wrongName = replyTo(message);
      wrongName[13]! ^= 0x01;
      const wrongType = replyTo(message);
      wrongType[message.length - 3]! ^= 0x20;
      const emptyQuestion = replyTo(message).subarray(0, 12);
      emptyQuestion.writeUInt16BE(0, 4);
      const notAReply = message;
      const right = replyTo(message, 0x8183);
      right[13]! ^= 0x20; // a name in another case is the same name
      return [wrongId, wrongName, wrongType, emptyQuestion, notAReply, Buffer.alloc(5), right];
    });
    const forwarder = new DnsForwarder();
    const resolver = site([forged.address], { forwarder });
    expect((await ask(resolver, 'keystone.example.org', 'A')).rcode).toBe('NXDOMAIN');
    expect(forwarder.counters.strayReplies).toBe(6);
  });

  // dns-packet decodes both names of each pair to the same text.
  test.each([
    ['x.y as one label', [3, 0x78, 0x2e, 0x79], [1, 0x78, 1, 0x79]],
    ['an octet that is not UTF-8', [3, 0x78, 0xff, 0x79], [3, 0x78, 0xfe, 0x79]],
  ])('ignores a reply for another name than one with %s', async (_, asked, other) => {
    const upstream = await startFake((message) => {
      const stray = replyTo(message, 0x8180);
      stray.set(other, 12);
      return [stray, replyTo(message, 0x8183)];
    });
    const forwarder = new DnsForwarder();
    const bytes = query('x-y.example.org', 'A');
    bytes.set(asked, 12);
    const answer = await site([upstream.address], { forwarder }).resolve(bytes, 'udp', LOCAL);
    expect(decodeAnswer(answer).rcode).toBe('NXDOMAIN');
    expect(forwarder.counters.strayReplies).toBe(1);
  });

  test('returns a reply whose records cannot be decoded, byte for byte', async () => {
    let sent: Buffer | undefined;
    const upstream = await startFake((message) => {
      sent = replyTo(message);
      sent.fill(0xff, 6, 12);
      return [sent];
    });
    const answer = await site([upstream.address]).resolve(query('a.test', 'A'), 'udp', LOCAL);
    expect(Buffer.from(answer!.subarray(2))).toEqual(sent!.subarray(2));
  });

  test('ignores a reply from another source than the upstream', async () => {
    let forgery = Promise.resolve();
    const upstream = createSocket('udp4');
    const other = createSocket('udp4');
    cleanups.push(
      () => upstream.close(),
      () => other.close()
    );
    upstream.on('message', (message, client) => {
      forgery = new Promise((resolve) => {
        other.send(replyTo(message, 0x8183), client.port, client.address, () => {
          upstream.send(replyTo(message, 0x8180), client.port, client.address);
          resolve();
        });
      });
    });
    upstream.bind(0, '127.0.0.1');
    await once(upstream, 'listening');
    const answer = await ask(
      site([`127.0.0.1:${upstream.address().port}`]),
      'keystone.example.org'
    );
    await forgery;
    expect(answer.rcode).toBe('NOERROR');
  });

  test('uses a new id and a new source port for every try', async () => {
    const seen: string[] = [];
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    cleanups.push(() => socket.close());
    await once(socket, 'listening');
    socket.on('message', (message, client) => {
      seen.push(`${message.readUInt16BE(0)}`, `port ${client.port}`);
      socket.send(replyTo(message), client.port, client.address);
    });
    let id = 0;
    const forwarder = new DnsForwarder({ randomId: () => ++id });
    const resolver = site([`127.0.0.1:${socket.address().port}`], { forwarder });
    await Promise.all([ask(resolver, 'a.example.org'), ask(resolver, 'b.example.org')]);
    expect(seen).toHaveLength(4);
    expect(new Set(seen).size).toBe(4);
    expect(seen.includes('1') && seen.includes('2')).toBe(true);
  });

  test('fetches a truncated reply by TCP, and truncates it for a client that asked by UDP', async () => {
    const { address, resolver: upstream } = await startUpstream();
    const forwarder = new DnsForwarder();
    const resolver = site([address], { forwarder });
    const overTcp = await ask(resolver, 'large.example.org', 'A', 'tcp');
    expect(overTcp).toMatchObject({ flag_tc: false });
    expect(overTcp.answers).toHaveLength(60);
    expect(forwarder.counters).toMatchObject({ udpTries: 1, tcpTries: 1, failedTries: 0 });
    const overUdp = await ask(resolver, 'large.example.org', 'A', 'udp');
    expect(overUdp).toMatchObject({ rcode: 'NOERROR', flag_tc: true, flag_ra: true, answers: [] });
    expect([resolver.counters.truncated, upstream.counters.truncated]).toEqual([1, 2]);
  });

  test('counts a truncated reply as a failed try when the TCP port is closed', async () => {
    const udpOnly = await startFake((message) => [replyTo(message, 0x8380)]);
    const { address } = await startUpstream();
    const answer = await ask(site([udpOnly.address, address]), 'large.example.org', 'A', 'tcp');
    expect(answer.answers).toHaveLength(60);
  });

  test('answers SERVFAIL at once when the allowed number of queries is waiting', async () => {
    const silent = await startFake(() => []);
    const resolver = site([silent.address], { maxForwarding: 2, allow: ['192.0.2.0/24'] });
    const waiting = ['192.0.2.1', '192.0.2.2'].map((client) =>
      ask(resolver, 'a.example.org', 'A', 'udp', client)
    );
    expect((await ask(resolver, 'c.example.org', 'A', 'udp', '192.0.2.3')).rcode).toBe('SERVFAIL');
    expect(resolver.counters).toMatchObject({ overloaded: 1, overShare: 0, failed: 1 });
    resolver.close();
    for (const answer of await Promise.all(waiting)) expect(answer.rcode).toBe('SERVFAIL');
    expect(resolver.counters).toMatchObject({ overloaded: 1, failed: 3 });
    expect((await ask(resolver, 'd.example.org', 'A', 'udp', '192.0.2.3')).rcode).toBe('SERVFAIL');
  });

  test('keeps places free for other clients when one wants all of them, and releases places', async () => {
    const held: (() => void)[] = [];
    const forwarder: Forwarder = {
      exchange: () => new Promise((resolve) => held.push(() => resolve(undefined))),
    };
    const resolver = site(['192.0.2.53'], { forwarder, allow: ['192.0.2.0/24'] });
    const from = (client: string, count: number): Promise<Answer>[] =>
      Array.from({ length: count }, (_, i) =>
        ask(resolver, `n${i}.example.org`, 'A', i % 2 === 0 ? 'udp' : 'tcp', client)
      );
    const greedy = from('192.0.2.1', 600);
    expect(held).toHaveLength(256); // half of 512
    expect(resolver.counters).toMatchObject({ overloaded: 344, overShare: 344 });
    const modest = from('192.0.2.2', 100);
    expect(held).toHaveLength(356);
    for (const end of held.splice(0)) end();
    await Promise.all([...greedy, ...modest]);
    const again = from('192.0.2.1', 256);
    expect(held).toHaveLength(256);
    for (const end of held) end();
    await Promise.all(again);
  });

  test.each<[string, Forwarder['exchange']]>([
    ['rejects', () => Promise.reject(new Error('broken'))],
    ['returns less than a header', () => Promise.resolve(Buffer.alloc(3))],
  ])('answers SERVFAIL when an injected forwarder %s', async (_, exchange) => {
    const resolver = site(['192.0.2.1'], { forwarder: { exchange } });
    expect((await ask(resolver, 'a.example.org')).rcode).toBe('SERVFAIL');
    expect(resolver.counters).toMatchObject({ failed: 1, forwarded: 0 });
  });

  test('forwards a label with a dot byte for byte', async () => {
    let received: Buffer | undefined;
    const echo = await startFake((message) => {
      received = message;
      return [replyTo(message)];
    });
    const asked = query('x-openstack.test', 'A');
    asked[asked.indexOf('-')] = '.'.charCodeAt(0);
    await site([echo.address]).resolve(asked, 'udp', LOCAL);
    expect(received!.subarray(2)).toEqual(asked.subarray(2));
  });
});

describe('forward rules', () => {
  test.each([
    ['192.0.2.53', '192.0.2.53', 53],
    ['192.0.2.53:5353', '192.0.2.53', 5353],
    ['2001:DB8::53', '2001:db8::53', 53],
    ['[2001:db8::53]', '2001:db8::53', 53],
    ['[::1]:5353', '::1', 5353],
  ])('accept the upstream %s', async (text, address, port) => {
    let seen: Upstream | undefined;
    const exchange: Forwarder['exchange'] = async (_, upstreams) => {
      seen = upstreams[0];
      return undefined;
    };
    await ask(
      new SiteResolver({ forward: [{ suffix: '.', upstreams: [text] }], forwarder: { exchange } }),
      'a'
    );
    expect(seen).toMatchObject({ address, port });
  });

  test.each<[string, ForwardRule[], string]>([
    [
      'a host name as upstream',
      [{ suffix: '.', upstreams: ['dns.example.org'] }],
      'forward[0].upstreams[0]',
    ],
    [
      'port 0',
      [{ suffix: '.', upstreams: ['192.0.2.1', '192.0.2.1:0'] }],
      'forward[0].upstreams[1]',
    ],
    ['port 65536', [{ suffix: '.', upstreams: ['[::1]:65536'] }], 'forward[0].upstreams[0]'],
    ['an open bracket', [{ suffix: '.', upstreams: ['[::1'] }], 'forward[0].upstreams[0]'],
    ['an empty upstream', [{ suffix: '.', upstreams: [''] }], 'forward[0].upstreams[0]'],
    ['no upstream', [{ suffix: '.', upstreams: [] }], 'forward[0].upstreams'],
    [
      'an empty label in a suffix',
      [{ suffix: 'a..b', upstreams: ['192.0.2.1'] }],
      'forward[0].suffix',
    ],
    [
      'a suffix given twice',
      [
        { suffix: 'example.org', upstreams: ['192.0.2.1'] },
        { suffix: 'EXAMPLE.org.', upstreams: ['192.0.2.2'] },
      ],
      'forward[1].suffix',
    ],
  ])('refuse %s', (_, forward, path) => {
    expect(() => new SiteResolver({ forward })).toThrow(ConfigError);
    expect(() => new SiteResolver({ forward })).toThrow(expect.objectContaining({ path }));
  });
});
