/**
 * Unauthenticated peers who knock and do not come in, and holders of a good certificate who knock without end.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { HELLO, type RawPeer } from '../support/raw-peer.ts';
import { answerOf, ended, halfOpen, intrude, knock, leave } from './attacker.ts';
import { FULL, type Outcome, Scene } from './scene.ts';

let scene: Scene;
/** The first that a TLS client says; the server answers it, and waits. */
let clientHello: Buffer;
const COUNT = FULL ? 1_000 : 200;

beforeAll(async () => {
  scene = await Scene.open();
  clientHello = await captureClientHello();
});

afterAll(() => scene?.close());

/** The address of all honest gateways here. */
const THEIRS = () => '127.0.0.1';
const MANY = (i: number) => `127.0.${1 + Math.floor(i / 200)}.${1 + (i % 200)}`;

describe('half-open connections', () => {
  test.each([
    ['that say nothing, from the honest ones’ address', THEIRS, false],
    ['that say nothing, from many addresses', MANY, false],
    ['in the middle of TLS, from the honest ones’ address', THEIRS, true],
    ['in the middle of TLS, from many addresses', MANY, true],
  ])('%s, keep nobody out', async (what, addressOf, isTls) => {
    const outcome = await whileHeld(`half-open ${what}`, () =>
      halfOpen(scene.ports.tunnel, COUNT, addressOf, (socket) => {
        if (isTls) socket.write(clientHello);
      })
    );
    // Who has brought many of late has a smaller number let in.
    const cut = outcome.countedAs(/^listener\.(evicted|rateLimited)$/);
    expect(cut).toBeGreaterThanOrEqual(COUNT - 128);
  });

  /** The known edge comes back, and one that has never been here comes up. */
  async function whileHeld(what: string, open: () => Socket[]): Promise<Outcome> {
    return scene.attack(what, async () => {
      const sockets = open();
      await Promise.all(sockets.map((socket) => once(socket, 'connect').catch(() => {})));
      expect(await scene.bystander.call('reconnect')).toBeLessThan(BACK_WITHIN_MS);
      await scene.honest(await scene.enrol('site-c'), 'site-c');
      for (const socket of sockets) socket.destroy();
    });
  }

  test('that take their time are cut off when it is up, at either door', async () => {
    const held = FULL ? 30 : 10;
    const { tunnel, enrolment } = scene.ports;
    const outcome = await scene.attack('slow handshakes', async () => {
      const sockets = [
        ...halfOpen(tunnel, held, MANY),
        ...halfOpen(tunnel, held, (i) => MANY(200 + i), drip(clientHello)),
        ...halfOpen(enrolment, held, MANY),
        ...halfOpen(enrolment, held, (i) => MANY(200 + i), drip(clientHello)),
        // Someone who is known, and says no HELLO.
        knock(tunnel, scene.siteA).socket,
        slowRequest(enrolment),
      ];
      await Promise.all(sockets.map((socket) => new Promise((end) => socket.once('close', end))));
    });
    expect(outcome.differences).toMatchObject({
      'listener.failed.handshake-timeout': 2 * held + 1,
      'enrolment.timeouts': 2 * held + 1,
    });
  });

  test('of unauthenticated peers who are told to go, and stay and talk on, are cut off', async () => {
    const { tunnel } = scene.ports;
    const outcome = await scene.attack('unauthenticated peers who stay', async () => {
      const peers = Array.from({ length: COUNT / 4 }, (_, i) =>
        // None of them has a certificate.
        knock(tunnel, { ca: scene.siteA.ca }, {
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

  test('in a storm from one address are counted and cost little', async () => {
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

describe('holders of a good certificate', () => {
  const allow = (ms: number): number => 20 + 2 * Math.ceil(ms / 1000) + 2;

  test('who open tunnels without end get few of them', async () => {
    const started = performance.now();
    const codes: (string | undefined)[] = [];
    const outcome = await scene.attack('tunnels without end', async () => {
      for (let i = 0; i < (FULL ? 500 : 60); i++) {
        const peer = knock(scene.ports.tunnel, scene.siteA);
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

  test('who open connections without end get as many as a tunnel may have', async () => {
    const one = await scene.enrol('site-d');
    // The address of the test before may have used up its rate of connections.
    const from = { localAddress: '127.0.0.78' };
    const codes: (string | undefined)[] = [];
    const outcome = await scene.attack('connections without end', async () => {
      const tunnel = tunnelId(1000);
      const hello = { ...HELLO, tunnel, lane: 0 };
      const first = await intrude(scene.ports.tunnel, one, hello, from);
      const connections: RawPeer[] = [first];
      for (let connection = 1; connection < 40; connection++) {
        const peer = knock(scene.ports.tunnel, one, from);
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

  test('two with the same one replace one another, no faster than an operator can see', async () => {
    const one = await scene.enrol('site-e');
    const started = performance.now();
    const outcome = await scene.attack('two clones', async () => {
      // Each comes back as soon as it is cut, or turned away.
      const clone = async (): Promise<void> => {
        for (let i = 0; i < (FULL ? 200 : 40); i++) {
          const peer = knock(scene.ports.tunnel, one);
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

  test('connections to the tunnel of another site are refused', async () => {
    const one = await scene.enrol('site-c');
    const outcome = await scene.attack('connections of another site', async () => {
      const tunnel = tunnelId(2000);
      const theirs = await intrude(scene.ports.tunnel, one, { ...HELLO, tunnel, lane: 0 });
      for (const hello of [
        { ...HELLO, tunnel, lane: 1 },
        { ...HELLO, tunnel, lane: 0, renews: true },
      ]) {
        const peer = knock(scene.ports.tunnel, await other());
        peer.send(FrameType.Hello, hello);
        expect(await ended(peer)).toBe('no-tunnel');
      }
      expect(theirs.socket.destroyed).toBe(false);
      await leave(theirs);
    });
    expect(outcome.differences).toMatchObject({ 'listener.refused.no-tunnel': 2 });
  });

  let others: Credentials | undefined;
  /** Of site-d: site-a has used up what it may have by now. */
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
