/**
 * amqplib in this process, with RabbitMQ in the network of the cloud: through a unix socket, whose connections go on
 * over the sockets of an edge gateway, and by TLS straight over such a socket.
 */
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { pipeline, Transform } from 'node:stream';
import { type ChannelModel, type ConfirmChannel, type ConsumeMessage, connect } from 'amqplib';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { startRabbitMq } from '../../examples/two-sites/rabbitmq.ts';
import type { EdgeGateway } from '../../src/gateway/index.ts';
import type { Host } from '../support/network.ts';
import {
  counter,
  LIFETIME_SECONDS,
  SocketsScene,
  whatTheSceneMisses,
  ZONE,
} from './sockets-scene.ts';
import { testData } from './test-data.ts';

const skipReason = whatTheSceneMisses({
  socat: 'socat',
  '/usr/lib/rabbitmq/bin/rabbitmq-server': 'rabbitmq-server',
});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

/** Both ends give up after two intervals without a word, and a busy machine may be late by more than one second. */
const HEARTBEAT_S = 2;
/** A frame of type 8 on channel 0 with no payload. */
const HEARTBEAT = Buffer.from([8, 0, 0, 0, 0, 0, 0, 0xce]);

describe.skipIf(isSkipped)(`amqplib over the sockets of an edge gateway${reason}`, () => {
  let scene: SocketsScene;
  let agent: EdgeGateway;
  let server: Server;
  let path: string;
  const heartbeats = { sent: 0, received: 0 };

  /** Lets the bytes pass, and counts the heartbeats that come alone. */
  function counting(direction: keyof typeof heartbeats): Transform {
    return new Transform({
      transform(chunk, _, callback) {
        if (HEARTBEAT.equals(chunk)) heartbeats[direction]++;
        callback(null, chunk);
      },
    });
  }

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    scene = await SocketsScene.start(startBroker);
    const { service, directory } = scene;
    const [key, cert] = ['key', 'pem'].map((end) => join(directory, `${service.name}.${end}`));
    const tls = `OPENSSL-LISTEN:5671,fork,reuseaddr,cert=${cert},key=${key},verify=0`;
    service.start(['socat', tls, 'TCP:127.0.0.1:5672'], LIFETIME_SECONDS);
    agent = await scene.agent('site-a', { tunnelWaitMs: 600_000 });
    path = join(directory, 'bus.sock');
    server = createServer({ allowHalfOpen: true }, (near) => {
      const far = agent.sockets.connect({ host: 'bus', port: 5672, allowHalfOpen: true });
      pipeline(near, counting('sent'), far, () => {});
      pipeline(far, counting('received'), near, () => {});
    });
    server.listen(path);
    await once(server, 'listening');
  });
  afterAll(async () => {
    server?.close();
    await scene?.close();
  });

  /** Opens a connection through the unix socket. */
  const open = (heartbeat: number): Promise<ChannelModel> =>
    connect(`amqp://guest:guest@bus.${ZONE}?heartbeat=${heartbeat}`, { path });

  /** Publishes messages to a new queue, consumes them, and checks that they are the same in the same order. */
  async function exchange(connection: ChannelModel, messages: readonly Buffer[]): Promise<void> {
    const channel = await connection.createConfirmChannel();
    const { queue } = await channel.assertQueue('', { exclusive: true });
    const got: string[] = [];
    const all = new Promise<void>((resolve) => {
      void channel.consume(
        queue,
        (message) => {
          got.push(hashOf(message!.content));
          if (got.length === messages.length) resolve();
        },
        { noAck: true }
      );
    });
    for (const message of messages) channel.sendToQueue(queue, message);
    await channel.waitForConfirms();
    await all;
    expect(got).toEqual(messages.map(hashOf));
    await channel.close();
  }

  test('publishes and consumes thousands of messages, and large ones, through the TUN', async () => {
    const before = { tun: await scene.tunBytes(), sent: counter(agent, 'tunnel.sentBytes') };
    const connection = await open(0);
    const small = Array.from({ length: 2_000 }, (_, i) => Buffer.from(`message ${i}`));
    const large = testData(4 << 20);
    await exchange(connection, [...small, large, Buffer.alloc(0), ...small]);
    await connection.close();
    const { toHosts, fromHosts } = await scene.tunBytes();
    expect(toHosts - before.tun.toHosts).toBeGreaterThan(large.length);
    expect(fromHosts - before.tun.fromHosts).toBeGreaterThan(large.length);
    expect(counter(agent, 'tunnel.sentBytes') - before.sent).toBeGreaterThan(large.length);
  });

  test('speaks TLS straight over a socket of the gateway', async () => {
    const socket = agent.sockets.connect({ host: 'bus', port: 5671 });
    // The certificate is the one of `web`.
    const connection = await connect(`amqps://guest:guest@web.${ZONE}`, {
      socket,
      ca: scene.certificate,
    });
    await exchange(connection, [Buffer.from('hello'), testData(1 << 20)]);
    await connection.close();
  });

  test('keeps a connection by heartbeats', async () => {
    const connection = await open(HEARTBEAT_S);
    const before = { ...heartbeats };
    await vi.waitFor(() => {
      expect(heartbeats.received).toBeGreaterThan(before.received + 2);
      expect(heartbeats.sent).toBeGreaterThan(before.sent);
    });
    await exchange(connection, [Buffer.from('still there')]);
    await connection.close();
  });

  describe('when the tunnel is cut', () => {
    test('a connection without heartbeats goes on with what was published meanwhile', async () => {
      const connection = await open(0);
      const channel = await connection.createConfirmChannel();
      const { queue } = await channel.assertQueue('', { exclusive: true });
      await scene.cut();
      await vi.waitFor(() => expect(agent.state).toBe('connecting'));
      const message = testData(1 << 20);
      channel.sendToQueue(queue, message);
      await scene.mend();
      await channel.waitForConfirms();
      expect(hashOf((await take(channel, queue)).content)).toBe(hashOf(message));
      await connection.close();
    });

    test('a connection with heartbeats ends, and the next one finds what is in the queue', async () => {
      const connection = await open(HEARTBEAT_S);
      const channel = await connection.createConfirmChannel();
      const { queue } = await channel.assertQueue('kept', { durable: true });
      channel.sendToQueue(queue, Buffer.from('kept'), { persistent: true });
      await channel.waitForConfirms();
      const ended = once(connection, 'error');
      // `once` would reject with the error.
      const closed = new Promise((resolve) => connection.once('close', resolve));
      await scene.cut();
      expect(String(await ended)).toContain('Heartbeat timeout');
      await closed;
      const next = open(HEARTBEAT_S);
      await scene.mend();
      const again = await next;
      const other = await again.createConfirmChannel();
      expect(String((await take(other, queue)).content)).toBe('kept');
      await other.deleteQueue(queue);
      await again.close();
    });
  });
});

function startBroker(service: Host, directory: string): Promise<void> {
  const spawn = (command: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess => {
    const variables = Object.entries(env).map((entry) => entry.join('='));
    return service.start(['env', ...variables, ...command], LIFETIME_SECONDS).child;
  };
  return startRabbitMq({ spawn }, directory);
}

/** Takes the next message out of the queue. */
async function take(channel: ConfirmChannel, queue: string): Promise<ConsumeMessage> {
  return new Promise((resolve) => {
    void channel.consume(queue, (message) => resolve(message!), { noAck: true });
  });
}

function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
