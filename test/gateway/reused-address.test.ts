/**
 * A presence that is withdrawn while its connection and its UDP flow carry data: the host that gets its address next
 * hears nothing of them. The cloud has sockets in place of a device, and a pool of one address.
 */
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import type { EdgeGateway } from '../../src/gateway/index.ts';
import { Parse } from '../../src/packet/fields.ts';
import { PacketHeader } from '../../src/packet/header.ts';
import { PacketView } from '../../src/packet/view.ts';
import { SocketStack } from '../../src/sockets/index.ts';
import { Relay } from '../support/relay.ts';
import { VNET } from '../support/vnet.ts';
import { Gateways, LAN } from './scene.ts';

const LOOPBACK = '127.0.0.1';
const WAIT = { timeout: 60_000 };
const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const TTL_SECONDS = 30;

const gateways = new Gateways();
afterEach(() => gateways.close());

/** The clock of the system, which a test can set forward. */
class EarlyClock implements Clock {
  aheadMs = 0;
  readonly after: Clock['after'] = systemClock.after;

  wallMs(): number {
    return systemClock.wallMs();
  }

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.aheadMs;
  }
}

/** A stack that notes to which of its ports packets come. */
class NotingStack extends SocketStack {
  readonly ports = new Set<number>();
  readonly #header = new PacketHeader();
  readonly #view = new PacketView();

  override write(buffer: Buffer, offset: number, length: number): boolean {
    const outcome = this.#header.parse(this.#view.of(buffer), offset + VNET, offset + length);
    if (outcome === Parse.Ok) this.ports.add(this.#header.destinationPort);
    return super.write(buffer, offset, length);
  }
}

async function listen(onSocket: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    onSocket(socket);
  });
  server.listen(0, LOOPBACK);
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test('the next host of an address hears nothing of the one before', async () => {
  const accepted: Socket[] = [];
  // It never stops to speak, so bytes wait everywhere on the way to the client, which stops to read.
  const talker = await listen((socket) => {
    accepted.push(socket);
    const endless = Readable.from(
      (function* () {
        for (;;) yield Buffer.alloc(65_536, 'old');
      })()
    );
    socket.on('close', () => endless.destroy());
    endless.pipe(socket);
  });
  const echo = await listen((socket) => void socket.pipe(socket));
  let peer: RemoteInfo | undefined;
  const datagrams = createSocket('udp4', (message, from) => {
    peer ??= from;
    datagrams.send(message, from.port, from.address);
  });
  datagrams.bind(0, LOOPBACK);
  await once(datagrams, 'listening');
  onTestFinished(() => void datagrams.close());
  // What nobody takes comes back as ECONNREFUSED.
  datagrams.on('error', () => {});
  const udp = datagrams.address().port;

  const clock = new EarlyClock();
  const cloud = await gateways.cloud({
    device: { type: 'sockets' },
    clock,
    ttlSeconds: TTL_SECONDS,
    desired: {
      sites: ['cloud', 'site-a', 'site-b'].map((name) => ({
        name,
        ...LAN,
        sources: [...LAN.sources, '127.0.0.0/8'],
        pools: name === 'cloud' ? ['10.0.0.200/32'] : LAN.pools,
      })),
      services: [
        {
          name: 'bus',
          site: 'cloud',
          address: LOOPBACK,
          ports: [`tcp/${talker}`, `tcp/${echo}`, `udp/${udp}`],
        },
      ],
      exposures: ['site-a', 'site-b'].map((site) => ({ service: 'bus', site })),
    },
  });
  const { port } = cloud.addresses.tunnels[0]!;
  const relay = await Relay.open(port);
  onTestFinished(() => relay.close());
  const start = async (site: string, device: SocketStack, at: number): Promise<EdgeGateway> => {
    const token = await cloud.createToken({ site });
    const edge = await gateways.edge({ device, token, cloud: [`${LOOPBACK}:${at}`] });
    await edge.ready(PATIENCE);
    return edge;
  };
  const a = await start('site-a', new SocketStack({ address: '10.0.0.9' }), relay.port);
  const stack = new NotingStack({ address: '10.0.0.9' });

  const old = a.sockets.connect({ host: 'bus', port: talker });
  old.on('error', () => {});
  await once(old, 'data');
  old.pause();
  const flow = a.sockets.datagram('udp4');
  flow.on('error', () => {});
  flow.send('?', udp, 'bus');
  await once(flow, 'message');
  expect(cloud.whois('cloud', '10.0.0.200')).toMatchObject({ site: 'site-a' });

  // The site is cut off, so that its host neither keeps the lease nor learns anything.
  const isDown = new Promise<void>((resolve) => {
    cloud.on('edge', ({ state }) => state === 'down' && resolve());
  });
  relay.cut();
  await isDown;
  await cloud.releaseClients('site-a');
  // Nothing is left here, long before another host can have the address.
  expect([...cloud.sockets.tcp.connections()]).toEqual([]);
  expect((await cloud.status()).sockets).toMatchObject({
    'backend.tcp.withdrawn': 1,
    'backend.udp.withdrawn': 1,
  });
  await vi.waitUntil(() => accepted[0]!.destroyed, WAIT);
  clock.aheadMs = 2_000 * TTL_SECONDS;
  const b = await start('site-b', stack, port);

  const sendOld = (): void => datagrams.send('old', peer!.port, peer!.address);
  sendOld();
  const next = b.sockets.connect({ host: 'bus', port: echo });
  const nextFlow = b.sockets.datagram('udp4');
  for (let round = 0; round < 10; round++) {
    next.write('?');
    expect(String(await once(next, 'data'))).toBe('?');
    sendOld();
    nextFlow.send('!', udp, 'bus');
    expect(String((await once(nextFlow, 'message'))[0])).toBe('!');
  }
  expect(cloud.whois('cloud', '10.0.0.200')).toMatchObject({ site: 'site-b' });
  expect(stack.ports).toEqual(new Set([next.localPort, nextFlow.address().port]));
  next.destroy();
  nextFlow.close();
}, 180_000);
