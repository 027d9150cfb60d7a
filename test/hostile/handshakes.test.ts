/**
 * Unauthenticated peers that connect and send nothing, and holders of a valid certificate that connect without end.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { HELLO, type RawPeer } from '../support/raw-peer.ts';
import { answerOf, connect, ended, halfOpen, leave, openTunnel } from './attacker.ts';
import { FULL, type Outcome, Scene } from './scene.ts';

let scene: Scene;
/** The first message of a TLS client; the server answers it, and waits. */
let clientHello: Buffer;
const COUNT = FULL ? 1_000 : 200;

beforeAll(async () => {
  scene = await Scene.open();
  clientHello = await captureClientHello();
});

afterAll(() => scene?.close());

/** The address of all legitimate gateways here. */
const THEIRS = () => '127.0.0.1';
const MANY = (i: number) => `127.0.${1 + Math.floor(i / 200)}.${1 + (i % 200)}`;

describe('half-open connections', () => {
  test.each([
    ['silent, from the address of legitimate edges', THEIRS, false],
    ['silent, from many addresses', MANY, false],
    ['in the middle of TLS, from the address of legitimate edges', THEIRS, true],
    ['in the middle of TLS, from many addresses', MANY, true],
  ])('keep no edge from connecting: %s', async (what, addressOf, isTls) => {
    const outcome = await whileHeld(`half-open ${what}`, () =>
      halfOpen(scene.ports.tunnel, COUNT, addressOf, (socket) => {
        if (isTls) socket.write(clientHello);
      })
    );
    // An address with many recent connections has a smaller limit.
    const refused = outcome.countedAs(/^listener\.(evicted|rateLimited)$/);
    expect(refused).toBeGreaterThanOrEqual(COUNT - 128);
  });

  /** A known edge reconnects, and a new one comes up. */
  async function whileHeld(what: string, open: () => Socket[]): Promise<Outcome> {
    return scene.attack(what, async () => {
      const sockets = open();
      await Promise.all(sockets.map((socket) => once(socket, 'connect').catch(() => {})));
      expect(await scene.bystander.call('reconnect')).toBeLessThan(BACK_WITHIN_MS);
      await scene.checkEdge(await scene.enrol('site-c'), 'site-c');
      for (const socket of sockets) socket.destroy();
    });
  }

  test('are terminated when they time out, at the tunnel and at the enrolment port', async () => {
    const held = FULL ? 30 : 10;
    const { tunnel, enrolment } = scene.ports;
    const outcome = await scene.attack('slow handshakes', async () => {
      const sockets = [
        ...halfOpen(tunnel, held, MANY),
        ...halfOpen(tunnel, held, (i) => MANY(200 + i), drip(clientHello)),
        ...halfOpen(enrolment, held, MANY),
        ...halfOpen(enrolment, held, (i) => MANY(200 + i), drip(clientHello)),
        // This peer is authenticated, and sends no HELLO.
        connect(tunnel, scene.siteA).socket,
        slowRequest(enrolment),
      ];
      await Promise.all(sockets.map((socket) => new Promise((end) => socket.once('close', end))));
    });
    expect(outcome.differences).toMatchObject({
      'listener.failed.handshake-timeout': 2 * held + 1,
      'enrolment.timeouts': 2 * held + 1,
    });
  });

  test('are terminated if unauthenticated peers ignore their CLOSE and keep sending', async () => {
    const { tunnel } = scene.ports;
    const outcome = await scene.attack('unauthenticated peers that stay', async () => {
      const peers = Array.from({ length: COUNT / 4 }, (_, i) =>
        // None of them has a certificate.
        connect(tunnel, { ca: scene.siteA.ca }, {
          localAddress: MANY(i),
          allowHalfOpen: true,
        } as object)
      );
      for (const { socket } of peers) {
        socket.pause();
        socket.once('secureConnect', () => {
          const timer = setInterval(() => socket.write(Buffer.alloc(16_384)), DRIP_MS);
          socket.once('close', () => clearInterval(timer));
        });
      }
      expect(await scene.bystander.call('reconnect')).toBeLessThan(BACK_WITHIN_MS);
      await Promise.all(peers.map(({ closed }) => closed));
    });
    expect(outcome.countedAs(/^listener\.failed\./)).toBe(COUNT / 4);
  });

  test('are counted and cost little in large numbers from one address', async () => {
    const outcome = await scene.attack('a storm of connections', async () => {
      for (let i = 0; i < (FULL ? 40 : 4); i++) {
        const sockets = halfOpen(
          scene.ports.tunnel,
          250,
          () => '127.0.0.77',
          (socket) => setImmediate(() => socket.destroy())
        );
        await Promise.all(sockets.map((socket) => new Promise((end) => socket.once('close', end))));
      }
    });
    expect(outcome.counted('listener.rateLimited')).toBeGreaterThan(500);
  });
});

describe('holders of a valid certificate', () => {
  const allow = (ms: number): number => 20 + 2 * Math.ceil(ms / 1000) + 2;

  test('get few tunnels if they open them without end', async () => {
    const started = performance.now();
    const codes: (string | undefined)[] = [];
    const outcome = await scene.attack('tunnels without end', async () => {
      for (let i = 0; i < (FULL ? 500 : 60); i++) {
        const peer = connect(scene.ports.tunnel, scene.siteA);
        peer.send(FrameType.Hello, { ...HELLO, tunnel: tunnelId(i), lane: 0 });
        codes.push(await answerOf(peer));
        peer.socket.destroy();
      }
    });
    expect(codes).toContain('too-many');
    expect(codes.filter((code) => code === 'welcome').length).toBeLessThanOrEqual(
      allow(performance.now() - started)
    );
    expect(outcome.counted('listener.refused.too-many')).toBeGreaterThan(0);
  });

  test('get as many connections as a tunnel may have', async () => {
    const one = await scene.enrol('site-d');
    // The earlier tests may have used up the connection rate of the default address.
    const from = { localAddress: '127.0.0.78' };
    const codes: (string | undefined)[] = [];
    const outcome = await scene.attack('connections without end', async () => {
      const tunnel = tunnelId(1000);
      const hello = { ...HELLO, tunnel, lane: 0 };
      const first = await openTunnel(scene.ports.tunnel, one, hello, from);
      const connections: RawPeer[] = [first];
      for (let connection = 1; connection < 40; connection++) {
        const peer = connect(scene.ports.tunnel, one, from);
        peer.send(FrameType.Hello, { ...HELLO, tunnel, lane: connection });
        codes.push(await answerOf(peer));
        connections.push(peer);
      }
      await Promise.all(connections.map(leave));
    });
    expect(codes.filter((code) => code === 'welcome')).toHaveLength(7);
    expect(codes.filter((code) => code === 'no-tunnel' || code === 'too-many')).toHaveLength(32);
    expect(outcome.counted('listener.refused.no-tunnel')).toBeGreaterThan(0);
  });

  test('replace one another with the same certificate, no faster than an operator can see', async () => {
    const one = await scene.enrol('site-e');
    const started = performance.now();
    const outcome = await scene.attack('two clones', async () => {
      // Each reconnects as soon as it is replaced, or refused.
      const clone = async (): Promise<void> => {
        for (let i = 0; i < (FULL ? 200 : 40); i++) {
          const peer = connect(scene.ports.tunnel, one);
          peer.send(FrameType.Hello, HELLO);
          await answerOf(peer);
          await ended(peer);
        }
      };
      await Promise.race([Promise.all([clone(), clone()]), delay(FULL ? 20_000 : 1_500)]);
    });
    expect(outcome.counted('listener.accepted')).toBeLessThanOrEqual(
      allow(performance.now() - started)
    );
    expect(outcome.counted('listener.refused.too-many')).toBeGreaterThan(0);
  });

  test('cannot add connections to the tunnel of another site', async () => {
    const one = await scene.enrol('site-c');
    const outcome = await scene.attack('connections of another site', async () => {
      const tunnel = tunnelId(2000);
      const theirs = await openTunnel(scene.ports.tunnel, one, { ...HELLO, tunnel, lane: 0 });
      for (const hello of [
        { ...HELLO, tunnel, lane: 1 },
        { ...HELLO, tunnel, lane: 0, renews: true },
      ]) {
        const peer = connect(scene.ports.tunnel, await other());
        peer.send(FrameType.Hello, hello);
        expect(await ended(peer)).toBe('no-tunnel');
      }
      expect(theirs.socket.destroyed).toBe(false);
      await leave(theirs);
    });
    expect(outcome.differences).toMatchObject({ 'listener.refused.no-tunnel': 2 });
  });

  let others: Credentials | undefined;
  /** Credentials of site-d, because site-a has used up its rate by now. */
  async function other(): Promise<Credentials> {
    others ??= await scene.enrol('site-d');
    return others;
  }
});

/** Sends these bytes one by one. */
function drip(bytes: Buffer): (socket: Socket) => void {
  return (socket) => {
    let at = 0;
    const timer = setInterval(() => socket.write(bytes.subarray(at, ++at)), DRIP_MS);
    socket.on('close', () => clearInterval(timer));
  };
}

/** A request for a certificate whose body does not end. */
function slowRequest(port: number): Socket {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  socket.on('error', () => {});
  socket.once('secureConnect', () => {
    socket.write('POST /v1/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n');
    drip(Buffer.alloc(9000, ' '))(socket);
  });
  return socket;
}

function tunnelId(i: number): string {
  return i.toString(16).padStart(32, '0');
}

async function captureClientHello(): Promise<Buffer> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = connectTls({ port, host: '127.0.0.1', ALPNProtocols: ['virtual-presence/1'] });
  client.on('error', () => {});
  const [socket] = (await once(server, 'connection')) as [Socket];
  socket.on('error', () => {});
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return bytes;
}

const BACK_WITHIN_MS = 5_000;
const DRIP_MS = 100;
