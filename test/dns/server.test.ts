/**
 * The DNS server of a gateway, and its options, which a configuration file has too.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { parseSchema } from '../../src/base/schema.ts';
import {
  DNS_FORWARDER_DEFAULTS,
  DNS_LISTENER_DEFAULTS,
  DnsForwarder,
  DnsListener,
  type DnsOptions,
  DnsOptionsSchema,
  DnsServer,
  type DnsServerOptions,
  RESPONSE_RATE_DEFAULTS,
  SITE_RESOLVER_DEFAULTS,
  SiteResolver,
  type SiteResolverOptions,
} from '../../src/dns/index.ts';
import { ConfigError, EnvironmentError, PresenceError } from '../../src/errors.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { askTcp, askUdp, decodeAnswer, framedQuery, query, ZONE } from './scene.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function listen(options: Partial<DnsServerOptions> = {}): Promise<DnsServer> {
  const server = await DnsServer.listen({ listen: '127.0.0.1:0', ...options });
  cleanups.push(() => server.close());
  return server;
}

const ASKED = query('rabbit.mq.openstack.test', 'A');
const FRAMED = framedQuery('rabbit.mq.openstack.test', 'A');

describe('DnsServer', () => {
  test('answers on both transports from the zone that it was given', async () => {
    const server = await listen({ listen: { host: '127.0.0.1', port: 0 } });
    const { port } = server.address;
    expect(server.address).toEqual({ host: '127.0.0.1', port: expect.any(Number) });
    expect(port).toBeGreaterThan(0);
    expect((await askTcp(port, [FRAMED]))[0]!.rcode).toBe('REFUSED');
    server.setZone(ZONE);
    expect(decodeAnswer(await askUdp(port, ASKED)).answers).toHaveLength(1);
    expect((await askTcp(port, [FRAMED]))[0]!.answers).toHaveLength(1);
    expect(server.counters).toMatchObject({
      success: 2,
      refused: 1,
      udpQueries: 1,
      tcpConnections: 2,
    });
  });

  test('answers clients by the sources that were set last', async () => {
    const server = await listen({ allow: ['sources'] });
    server.setZone(ZONE);
    const rcode = async () => decodeAnswer(await askUdp(server.address.port, ASKED)).rcode;
    expect(await rcode()).toBe('REFUSED');
    server.setSources(['127.0.0.0/8']);
    expect(await rcode()).toBe('NOERROR');
    expect(() => server.setSources(['everybody'])).toThrow(ConfigError);
  });

  test('answers SERVFAIL from a zone that has expired, forwards none of its names, and goes on with the next', async () => {
    let forwarded = 0;
    const upstream = createSocket('udp4', () => forwarded++).bind(0, '127.0.0.1');
    cleanups.push(() => upstream.close());
    await once(upstream, 'listening');
    const upstreams = [`127.0.0.1:${upstream.address().port}`];
    const server = await listen({ forward: [{ suffix: '.', upstreams }] });
    const { port } = server.address;
    const rcodes = async (): Promise<string[]> => {
      const names = ['keystone.openstack.test', 'absent.openstack.test', '2.0.64.100.in-addr.arpa'];
      const answers = names.map((name) => askUdp(port, query(name, 'A')));
      return (await Promise.all(answers)).map((answer) => decodeAnswer(answer).rcode);
    };
    server.setZone(ZONE);
    server.expireZone();
    expect(await rcodes()).toEqual(['SERVFAIL', 'SERVFAIL', 'SERVFAIL']);
    expect([server.counters.failed, forwarded]).toEqual([3, 0]);
    server.setZone(ZONE);
    expect(await rcodes()).toEqual(['NOERROR', 'NXDOMAIN', 'NOERROR']);
  });

  test('closes once, frees the port and leaves nothing open', async () => {
    const server = await listen();
    const { address } = server;
    const closing = server.close();
    expect(server.close()).toBe(closing);
    expect(server[Symbol.asyncDispose]()).toBe(closing);
    await closing;
    // Another program may have taken the port since, but not this process.
    const again = await DnsServer.listen({ listen: address }).catch((error: Error) => error);
    if (again instanceof DnsServer) await again.close();
    else expect(again.message).toContain('another program listens there');
  });

  test('ends an exchange that is running when it closes', async () => {
    const upstream = createSocket('udp4');
    upstream.bind(0, '127.0.0.1');
    await once(upstream, 'listening');
    cleanups.push(() => upstream.close());
    const forward = [{ suffix: '.', upstreams: [`127.0.0.1:${upstream.address().port}`] }];
    const server = await listen({ forward });
    const client = createSocket('udp4');
    cleanups.push(() => client.close());
    client.send(query('example.org', 'A'), server.address.port, '127.0.0.1');
    await once(upstream, 'message');
    await server.close();
    expect(server.counters.failed).toBe(1);
  });

  test('leaves nothing open when the port is busy', async () => {
    const busy = createServer();
    busy.listen(0, '127.0.0.1');
    await once(busy, 'listening');
    cleanups.push(() => busy.close());
    const address = busy.address() as { port: number };
    const opening = DnsServer.listen({ listen: `127.0.0.1:${address.port}` });
    await expect(opening).rejects.toThrow(EnvironmentError);
  });

  test('measures its rate by the clock that it was given', async () => {
    const clock = new FakeClock();
    const rateLimit = { responsesPerSecond: 1, slip: 1, exempt: [] };
    const server = await listen({ clock, rateLimit });
    server.setZone(ZONE);
    const isTruncated = async () => decodeAnswer(await askUdp(server.address.port, ASKED)).flag_tc;
    expect([await isTruncated(), await isTruncated()]).toEqual([false, true]);
    clock.advance(1000);
    expect(await isTruncated()).toBe(false);
  });
});

type Fault = readonly [options: unknown, message: string];
const FAULTS: readonly Fault[] = [
  [{}, 'listen: is missing'],
  [{ listen: undefined }, 'listen: is missing, expected a string'],
  [{ listen: 53 }, 'listen: expected a string, got 53'],
  [
    { listen: '10.0.0.1' },
    'listen: expected a host and port such as 192.0.2.1:7443, got "10.0.0.1"',
  ],
  [{ listen: 'localhost:53' }, 'listen: expected an IP address, not a name, before the port'],
  [{ listen: { host: '127.0.0.1' } }, 'listen.port: is missing'],
  [{ listen: { host: '127.0.0.1', port: 65_536 } }, 'listen: expected a port from 0 to 65535'],
  [{ colour: 'red' }, 'colour: is not a known key'],
  [{ forward: {} }, 'forward: expected a list, got {}'],
  [{ forward: [{ suffix: '.' }] }, 'forward[0].upstreams: is missing'],
  [
    { forward: [{ suffix: '.', upstreams: [] }] },
    'forward[0].upstreams: no upstream is given for "."',
  ],
  [
    { forward: [{ suffix: '.', upstreams: ['192.0.2.1', '192.0.2.256'] }] },
    'forward[0].upstreams[1]: "192.0.2.256" is not an address, nor one with a port',
  ],
  [{ allow: 'sources' }, 'allow: expected a list, got "sources"'],
  [{ allow: ['sources', 5] }, 'allow[1]: expected a string, got 5'],
  [
    { allow: ['sources', 'everybody'] },
    'allow[1]: "everybody" is not an IP prefix, nor "sources" or "loopback"',
  ],
  [{ rateLimit: { slip: 11 } }, 'rateLimit.slip: 11 is not an integer from 0 to 10'],
  [{ rateLimit: { slip: '1' } }, 'rateLimit.slip: expected a number, got "1"'],
  [{ rateLimit: { speed: 1 } }, 'rateLimit.speed: is not a known key'],
  [
    { rateLimit: { exempt: ['nobody'] } },
    'rateLimit.exempt[0]: "nobody" is not an IP prefix, nor "sources" or "loopback"',
  ],
];

describe('the options of the DNS service', () => {
  test.each(FAULTS)(
    '%j are refused by the schema and by the server alike',
    async (options, message) => {
      const hasListen = 'listen' in (options as object) || message.startsWith('listen: is missing');
      const whole = hasListen ? options : { listen: '127.0.0.1:0', ...(options as object) };
      const messageOf = (use: () => unknown) =>
        Promise.resolve()
          .then(use)
          .then(
            () => 'was accepted',
            (error: unknown) => (error instanceof ConfigError ? error.message : error)
          );
      expect(await messageOf(() => parseSchema(DnsOptionsSchema, whole))).toBe(message);
      expect(await messageOf(() => DnsServer.listen(whole as DnsOptions))).toBe(message);
      const inFile = `dns.${message}`;
      expect(await messageOf(() => parseSchema(DnsOptionsSchema, whole, 'dns'))).toBe(inFile);
    }
  );

  test.each<[make: (options: never) => unknown, options: unknown, message: string]>([
    [DnsServer.listen, undefined, 'options must be an object, not undefined'],
    [
      DnsServer.listen,
      { listen: '127.0.0.1:0', clock: 5 },
      'clock must be an object with the methods wallMs, monotonicMs, after, not 5',
    ],
    [DnsListener.listen, undefined, 'options must be an object, not undefined'],
    [
      DnsListener.listen,
      { listen: '127.0.0.1:0' },
      'resolver must be an object with the methods resolve, mayAsk, not undefined',
    ],
    [
      DnsListener.listen,
      { resolver: new SiteResolver(), listen: 5 },
      'listen: expected a string, got 5',
    ],
    [
      DnsListener.listen,
      { resolver: new SiteResolver(), listen: '127.0.0.1:0', maxUdpSending: '1' },
      'maxUdpSending: 1 is not an integer from 1 to 2147483647',
    ],
    [(options) => new SiteResolver(options), 5, 'options must be an object, not 5'],
    [
      (options) => new SiteResolver(options),
      { zone: {} },
      'zone must be an object with the methods lookup, not an object of another kind',
    ],
    [
      (options) => new SiteResolver(options),
      { forwarder: {} },
      'forwarder must be an object with the methods exchange, not an object of another kind',
    ],
    [(options) => new SiteResolver(options), { forward: 5 }, 'forward: expected a list, got 5'],
    [
      (options) => new SiteResolver(options),
      { maxForwarding: '5' },
      'maxForwarding: 5 is not an integer from 0 to 65535',
    ],
    [
      (options) => new DnsForwarder(options),
      { timeoutMs: 0 },
      'timeoutMs: 0 is not an integer from 1 to 2147483647',
    ],
    [(options) => new DnsForwarder(options), { randomId: 5 }, 'randomId must be a function, not 5'],
  ])('%o refuses %j', async (make, options, message) => {
    const made = Promise.resolve().then(() => make(options as never));
    await expect(made).rejects.toThrow(PresenceError);
    await expect(made).rejects.toThrow(message);
  });

  test('have the defaults that the documentation gives', () => {
    expect(SITE_RESOLVER_DEFAULTS).toEqual({
      allow: ['sources', 'loopback'],
      forward: [],
      maxUdpBytes: 1232,
      maxQueryBytes: 4096,
      maxForwarding: 512,
    });
    expect(DNS_LISTENER_DEFAULTS).toEqual({
      tcpIdleTimeoutMs: 10_000,
      maxTcpConnections: 128,
      maxTcpInFlight: 16,
      maxUdpSending: 1024,
    });
    expect(RESPONSE_RATE_DEFAULTS).toEqual({
      responsesPerSecond: 1000,
      errorsPerSecond: 50,
      slip: 1,
      exempt: ['loopback'],
    });
    expect(DNS_FORWARDER_DEFAULTS).toEqual({ timeoutMs: 2000 });
  });

  test('may be undefined', () => {
    const options = { zone: undefined, forward: undefined, allow: undefined, rateLimit: undefined };
    expect(() => new SiteResolver(options satisfies SiteResolverOptions)).not.toThrow();
  });
});
