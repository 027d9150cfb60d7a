import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { encodeFrame } from '../../src/dns/framing.ts';
import {
  DnsListener,
  type DnsListenerOptions,
  type Forwarder,
  SiteResolver,
  type SiteResolverOptions,
  Zone,
} from '../../src/dns/index.ts';
import { ConfigError, EnvironmentError } from '../../src/errors.ts';
import {
  type Answer,
  askTcp,
  askUdp,
  decodeAnswer,
  framedQuery,
  query,
  ZONE,
  ZONE_DATA,
} from './scene.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function listen(
  options: SiteResolverOptions & Partial<DnsListenerOptions> = {}
): Promise<DnsListener> {
  const resolver = options.resolver ?? new SiteResolver({ zone: ZONE, ...options });
  const listener = await DnsListener.listen({ listen: '127.0.0.1:0', ...options, resolver });
  cleanups.push(() => listener.close());
  return listener;
}

/** A connected client. */
async function dial(listener: DnsListener): Promise<Socket> {
  const socket = connect(listener.address);
  cleanups.push(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

/** A forwarder whose exchanges end when the test calls `release`. */
function heldForwarder(): { forwarder: Forwarder; release: () => void; waiting: () => number } {
  const held: (() => void)[] = [];
  const exchange: Forwarder['exchange'] = ({ bytes }) =>
    new Promise((resolve) => {
      held.push(() => {
        const reply = Buffer.from(bytes);
        reply.writeUInt16BE(0x8180, 2);
        resolve(reply);
      });
    });
  const release = (): void => {
    for (const end of held.splice(0)) end();
  };
  return { forwarder: { exchange }, release, waiting: () => held.length };
}

const FORWARD = [{ suffix: '.', upstreams: ['192.0.2.1'] }];

describe('DnsListener over UDP', () => {
  test('answers from the zone, and from the next zone after setZone', async () => {
    const resolver = new SiteResolver({ zone: ZONE });
    const {
      address: { port },
    } = await listen({ resolver });
    const asked = query('keystone.openstack.test', 'A');
    expect(decodeAnswer(await askUdp(port, asked)).answers[0]!.data).toBe('100.64.0.2');
    resolver.setZone(
      Zone.compile({ ...ZONE_DATA, hosts: [{ name: 'keystone', addresses: ['100.64.0.77'] }] })
    );
    expect(decodeAnswer(await askUdp(port, asked)).answers[0]!.data).toBe('100.64.0.77');
  });

  test('answers on IPv6', async () => {
    const listener = await listen({ listen: '[::1]:0' });
    const client = createSocket('udp6');
    cleanups.push(() => client.close());
    client.send(query('keystone.openstack.test', 'A'), listener.address.port, '::1');
    const [reply] = await once(client, 'message');
    expect(decodeAnswer(reply).answers).toHaveLength(1);
  });

  test('does not answer garbage and responses, and answers the query that follows', async () => {
    const resolver = new SiteResolver({ zone: ZONE });
    const {
      address: { port },
    } = await listen({ resolver });
    const client = createSocket('udp4');
    cleanups.push(() => client.close());
    const response = query('keystone.openstack.test', 'A');
    response[2] = 0x81;
    for (const bytes of [Buffer.alloc(0), Buffer.from('hello'), response]) {
      client.send(bytes, port, '127.0.0.1');
    }
    const asked = query('nova.openstack.test', 'A');
    asked.writeUInt16BE(0x4321, 0);
    client.send(asked, port, '127.0.0.1');
    const [reply] = await once(client, 'message');
    expect(decodeAnswer(reply).id).toBe(0x4321);
    expect(resolver.counters).toMatchObject({ ignored: 3, nxdomain: 1 });
  });

  test('drops an answer that is ready only after close', async () => {
    const { forwarder, release, waiting } = heldForwarder();
    const resolver = new SiteResolver({ forward: FORWARD, forwarder });
    const listener = await listen({ resolver });
    const client = createSocket('udp4');
    cleanups.push(() => client.close());
    client.send(query('example.org', 'A'), listener.address.port, '127.0.0.1');
    await expect.poll(waiting).toBe(1);
    await listener.close();
    release();
    await expect.poll(() => resolver.counters.forwarded).toBe(1);
    expect(listener.counters).toMatchObject({ udpQueries: 1, udpDrops: 0 });
  });
});

describe('DnsListener over TCP', () => {
  const pipelined = Buffer.concat(
    ['keystone', 'nova', 'large'].map((name) => framedQuery(`${name}.openstack.test`, 'A'))
  );
  const outcome = (replies: readonly Answer[]): [string, number][] =>
    replies.map(({ rcode, answers }) => [rcode, answers.length]);
  const EXPECTED = [
    ['NOERROR', 1],
    ['NXDOMAIN', 0],
    ['NOERROR', 60],
  ];

  test('answers pipelined queries, in one piece or in single bytes, also after the client has ended its half', async () => {
    const {
      address: { port },
    } = await listen();
    expect(outcome(await askTcp(port, [pipelined]))).toEqual(EXPECTED);
    expect(
      outcome(
        await askTcp(
          port,
          [...pipelined].map((byte) => Buffer.of(byte))
        )
      )
    ).toEqual(EXPECTED);
  });

  test.each([
    ['a message shorter than a header', encodeFrame(Buffer.from('GET / HTTP'))],
    ['an empty message', Buffer.alloc(2)],
    ['a response', encodeFrame(Buffer.from('123480000000000000000000', 'hex'))],
  ])('closes the connection after %s, and answers nothing that follows', async (_, bytes) => {
    const resolver = new SiteResolver({ zone: ZONE });
    const {
      address: { port },
    } = await listen({ resolver });
    const asked = framedQuery('keystone.openstack.test', 'A');
    // Bytes that arrive after the connection was closed may reset it.
    await askTcp(port, [asked, bytes, asked]).catch(() => {});
    expect(resolver.counters).toMatchObject({ success: 1, ignored: 1 });
  });

  test('answers out of order, and the rest when an upstream has replied', async () => {
    const { forwarder, release, waiting } = heldForwarder();
    const {
      address: { port },
    } = await listen({ forward: FORWARD, forwarder });
    const foreign = query('example.org', 'A');
    foreign.writeUInt16BE(1, 0);
    const replies = askTcp(port, [encodeFrame(foreign), pipelined]);
    await expect.poll(waiting).toBe(1);
    setImmediate(release);
    const ids = (await replies).map(({ id }) => id);
    expect(ids.toSorted((a, b) => a! - b!)).toEqual([1, 0x1234, 0x1234, 0x1234]);
  });

  test('lets at most the allowed number of queries of a connection wait, and answers all in the end', async () => {
    const { forwarder, release, waiting } = heldForwarder();
    const {
      address: { port },
    } = await listen({ forward: FORWARD, forwarder, maxTcpInFlight: 2 });
    const burst = Buffer.concat(Array.from({ length: 5 }, () => framedQuery('a.test', 'A')));
    const replies = askTcp(port, [burst]);
    for (const expected of [2, 2, 1]) {
      await expect.poll(waiting).toBe(expected);
      release();
    }
    expect(await replies).toHaveLength(5);
  });

  test('stops answering a client that does not read, and goes on when it does', async () => {
    const resolver = new SiteResolver({ zone: ZONE });
    const listener = await listen({ resolver });
    const client = await dial(listener);
    const count = 20_000; // 20 MB of answers
    client.pause();
    client.write(
      Buffer.concat(Array.from({ length: count }, () => framedQuery('large.openstack.test', 'A')))
    );
    let answered = -1;
    await expect
      .poll(() => {
        const settled = answered === resolver.counters.success && answered > 0;
        answered = resolver.counters.success;
        return settled;
      })
      .toBe(true);
    expect(answered).toBeLessThan(count);
    let received = 0;
    client.on('data', (chunk) => {
      received += chunk.length;
    });
    client.resume();
    client.end();
    await once(client, 'end');
    expect(received).toBe(count * (2 + 38 + 60 * 16));
  });

  test('closes a connection that sends single bytes but no whole query', async () => {
    const listener = await listen({ tcpIdleTimeoutMs: 60 });
    const client = await dial(listener);
    const trickle = setInterval(() => client.write('\0'), 10);
    cleanups.push(() => clearInterval(trickle));
    client.write(Buffer.of(0xff));
    client.resume();
    // Not `once` of node:events: a byte that arrives after the connection was closed resets it.
    await new Promise((resolve) => client.once('close', resolve));
  });

  test('closes a connection beyond the limit at once, and takes one when another has ended', async () => {
    const listener = await listen({ maxTcpConnections: 1 });
    const first = await dial(listener);
    const second = await dial(listener);
    second.resume();
    await once(second, 'close');
    expect(listener.counters.tcpRefused).toBe(1);
    first.destroy();
    const asked = framedQuery('keystone.openstack.test', 'A');
    await expect
      .poll(async () => (await askTcp(listener.address.port, [asked]).catch(() => [])).length)
      .toBe(1);
  });

  test('keeps places free for other clients when one opens as many connections as it can', async () => {
    const listener = await listen({ maxTcpConnections: 8 });
    const from = async (localAddress: string): Promise<Socket> => {
      const socket = connect({ ...listener.address, localAddress });
      cleanups.push(() => socket.destroy());
      socket.on('error', () => {});
      await once(socket, 'connect');
      socket.resume();
      return socket;
    };
    const greedy: Socket[] = [];
    for (let i = 0; i < 12; i++) greedy.push(await from('127.0.0.2'));
    await expect.poll(() => listener.counters.tcpRefused).toBe(8);
    expect(listener.counters).toMatchObject({ tcpConnections: 4, tcpOverShare: 8 });
    const asked = framedQuery('keystone.openstack.test', 'A');
    expect(await askTcp(listener.address.port, [asked], '127.0.0.3')).toHaveLength(1);
    for (const socket of greedy) socket.destroy();
    await expect
      .poll(
        async () =>
          (await askTcp(listener.address.port, [asked], '127.0.0.2').catch(() => [])).length
      )
      .toBe(1);
  });

  test('counts all clients that may not ask as one, and refuses their queries', async () => {
    const listener = await listen({ maxTcpConnections: 8, allow: ['127.0.0.3'] });
    const asked = framedQuery('keystone.openstack.test', 'A');
    for (let i = 10; i < 20; i++) {
      const socket = connect({
        ...listener.address,
        localAddress: `127.0.0.${i}`,
      });
      cleanups.push(() => socket.destroy());
      socket.on('error', () => {});
      await once(socket, 'connect');
    }
    await expect.poll(() => listener.counters.tcpOverShare).toBe(6);
    const [answer] = await askTcp(listener.address.port, [asked], '127.0.0.3');
    expect(answer!.rcode).toBe('NOERROR');
    const outsider = await listen({ allow: ['127.0.0.3'] });
    const [refusal] = await askTcp(outsider.address.port, [asked], '127.0.0.4');
    expect(refusal!.rcode).toBe('REFUSED');
  });

  test('survives a client that resets while its query waits for an upstream', async () => {
    const { forwarder, release, waiting } = heldForwarder();
    const listener = await listen({ zone: ZONE, forward: FORWARD, forwarder });
    const client = await dial(listener);
    client.write(framedQuery('example.org', 'A'));
    await expect.poll(waiting).toBe(1);
    client.resetAndDestroy();
    await once(client, 'close');
    release();
    expect(outcome(await askTcp(listener.address.port, [pipelined]))).toEqual(EXPECTED);
  });

  test('ends open connections on close, and frees the port', async () => {
    // Other files run in this process, and handles of the test before may be on their way out.
    const before = listeningPorts();
    const listener = await listen();
    const client = await dial(listener);
    client.resume();
    const closed = once(client, 'close');
    await Promise.all([listener.close(), listener.close()]);
    await closed;
    expect(listeningPorts()).toBeLessThanOrEqual(before);
  });
});

/** Returns the number of TCP and UDP ports at which this process listens. */
function listeningPorts(): number {
  return process.getActiveResourcesInfo().filter((each) => /^(TCPServerWrap|UDPWrap)$/.test(each))
    .length;
}

/** Binds a UDP port and keeps it. */
async function takeUdpPort(): Promise<number> {
  const udp = createSocket('udp4').bind(0, '127.0.0.1');
  cleanups.push(() => udp.close());
  await once(udp, 'listening');
  return udp.address().port;
}

describe('DnsListener.listen', () => {
  test('names the transport whose port is busy', async () => {
    const {
      address: { port },
    } = await listen();
    await expect(listen({ listen: { host: '127.0.0.1', port } })).rejects.toThrow(
      `cannot answer DNS at 127.0.0.1 on TCP port ${port}: another program listens there`
    );
    await expect(listen({ listen: { host: '127.0.0.1', port } })).rejects.toThrow(EnvironmentError);

    for (;;) {
      const taken = await takeUdpPort();
      const error = await listen({ listen: `127.0.0.1:${taken}` }).catch((fault: Error) => fault);
      // Another program on this machine has the same TCP port at this moment.
      if (error instanceof Error && error.message.includes(`on TCP port ${taken}: another`))
        continue;
      expect(error).toMatchObject({
        message: expect.stringContaining(`on UDP port ${taken}: another program listens there`),
      });
      break;
    }
  });

  test('reports that no interface has the address', async () => {
    await expect(listen({ listen: '192.0.2.1:0' })).rejects.toThrow(
      'no interface has that address'
    );
  });

  test('refuses a host name and limits out of range', async () => {
    await expect(listen({ listen: 'localhost:0' })).rejects.toThrow(ConfigError);
    await expect(listen({ listen: 'localhost:0' })).rejects.toThrow(
      'listen: expected an IP address, not a name, before the port'
    );
    await expect(listen({ listen: '127.0.0.1:65536' })).rejects.toThrow(ConfigError);
    await expect(listen({ maxTcpConnections: 0 })).rejects.toThrow('maxTcpConnections: 0');
    expect(() => new SiteResolver({ maxUdpBytes: 511 })).toThrow(ConfigError);
  });
});

describe("Node's own resolver", () => {
  test('gets every type, and distinguishes a missing name from missing data', async () => {
    const {
      address: { port },
    } = await listen();
    const client = new Resolver({ tries: 1 });
    client.setServers([`127.0.0.1:${port}`]);
    expect(await client.resolve4('rabbit.mq.openstack.test', { ttl: true })).toEqual([
      { address: '100.64.0.3', ttl: 60 },
    ]);
    expect(await client.resolve6('rabbit.mq.openstack.test')).toEqual(['2001:db8:64::3']);
    expect(await client.reverse('100.64.0.2')).toEqual(['keystone.openstack.test']);
    expect(await client.reverse('2001:db8:64::3')).toEqual(['rabbit.mq.openstack.test']);
    expect(await client.resolveSrv('_amqp._tcp.rabbit.mq.openstack.test')).toMatchObject([
      { name: 'rabbit.mq.openstack.test', port: 5672, priority: 0, weight: 0 },
    ]);
    expect(await client.resolveTxt('rabbit.mq.openstack.test')).toEqual([['vhost=/nova']]);
    expect(await client.resolveNs('openstack.test')).toEqual(['ns.openstack.test']);
    expect(await client.resolveSoa('openstack.test')).toMatchObject({ serial: 7, minttl: 10 });
    expect(await client.resolve4('large.openstack.test')).toHaveLength(60);
    await expect(client.resolve6('keystone.openstack.test')).rejects.toMatchObject({
      code: 'ENODATA',
    });
    await expect(client.resolve4('nova.openstack.test')).rejects.toMatchObject({
      code: 'ENOTFOUND',
    });
    await expect(client.resolve4('example.org')).rejects.toMatchObject({ code: 'EREFUSED' });
  });
});
