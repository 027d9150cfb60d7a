/**
 * Random input from a peer: it causes no crash, no unexpected error, and no memory that stays in use.
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { TLSSocket } from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import { expect, test } from 'vitest';
import { ControlServer } from '../../src/control/index.ts';
import { parseCloudMessage, parseEdgeMessage } from '../../src/control/messages.ts';
import { CertificateError, PeerProtocolError } from '../../src/errors.ts';
import {
  CertificateAuthority,
  createSigningRequest,
  generateCa,
  generateGatewayKey,
} from '../../src/pki/index.ts';
import { type Json, MemoryStore } from '../../src/store/index.ts';
import { TunnelConnection } from '../../src/tunnel/connection.ts';
import { FrameFault, handshakeLimits, openLimits } from '../../src/tunnel/frame.ts';
import { FrameDecoder } from '../../src/tunnel/frame-decoder.ts';
import { DIAL_DEFAULTS, FrameType } from '../../src/tunnel/index.ts';
import { readHello } from '../../src/tunnel/messages.ts';
import { SlabBudget, SlabPool } from '../../src/tunnel/slab-pool.ts';
import { newConnectionCounters } from '../../src/tunnel/tunnel.ts';
import { FakeChannel } from '../control/link.ts';
import { DESIRED, startScene } from '../control/scene.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { decodeNaively } from '../support/naive-decoder.ts';
import { check, fuzz, TIMEOUT_MS } from './fuzz-cases.ts';
import { anyJson, spoil, spoilText } from './fuzz-json.ts';
import { edgeStream, MAX_CONTROL_BYTES, openStream, split } from './fuzz-streams.ts';

const trustDomain = 'example.org';
const identity = { trustDomain, role: 'site', site: 'site-a' } as const;

/** The part of a tunnel's connection that a connection uses; accepts everything that is written. */
class FakeSocket extends EventEmitter {
  readonly readableLength = 0;
  destroyed = false;
  writtenBytes = 0;

  setNoDelay(): void {}

  write(bytes: Uint8Array, done: () => void): void {
    this.writtenBytes += bytes.length;
    queueMicrotask(done);
  }

  end(bytes: Uint8Array): void {
    this.writtenBytes += bytes.length;
  }

  destroy(): void {
    this.destroyed = true;
  }
}

test('a decoder finds the same frames as the simple decoder in any stream, and stops where that does', {
  timeout: TIMEOUT_MS,
}, async () => {
  const pool = new SlabPool();
  const tally = await fuzz('frames', (random) => {
    const stream = openStream(random);
    const decoder = new FrameDecoder(openLimits(MAX_CONTROL_BYTES), pool);
    const frames: [number, string][] = [];
    let fault: FrameFault = FrameFault.None;
    for (const piece of split(random, stream)) {
      fault = decoder.push(piece, (type, buffer, start, end) => {
        frames.push([type, buffer.toString('hex', start, end)]);
        buffer.fill(0xee, start - 4, end);
        return true;
      });
      if (fault !== FrameFault.None) break;
    }
    decoder.free();
    const plain = decodeNaively(stream, MAX_CONTROL_BYTES);
    if (!isDeepStrictEqual({ frames, fault }, plain)) expect({ frames, fault }).toEqual(plain);
    return `fault ${fault}`;
  });
  if (process.env.VP_CASE === undefined) expect(Object.keys(tally)).toHaveLength(3);
});

test('a connection accepts the valid beginning of any stream, and ends at the first fault', {
  timeout: TIMEOUT_MS,
}, async () => {
  const pool = new SlabPool();
  const limits = {
    ...DIAL_DEFAULTS,
    maxControlBytes: MAX_CONTROL_BYTES,
    maxReceivedControlBytes: MAX_CONTROL_BYTES,
    maxControlByteRate: MAX_CONTROL_BYTES,
    maxControlQueueBytes: 2 * MAX_CONTROL_BYTES,
    tcp: undefined,
  };
  const tally = await fuzz('connections', async (random) => {
    const stream = edgeStream(random);
    const socket = new FakeSocket();
    const endings: string[] = [];
    const clock = new FakeClock();
    const counters = newConnectionCounters();
    const connection = new TunnelConnection(socket as unknown as TLSSocket, FrameType.Hello, {
      ...limits,
      pool,
      clock,
    });
    connection.on('closed', ({ by, code }) => endings.push(`${by} ${code}`));
    connection.once('handshake', (message) => {
      if (readHello(message) === undefined) {
        connection.failProtocol('the HELLO is malformed');
        return;
      }
      connection.becomeUp(1_000);
      connection.joinTunnel(counters, new SlabBudget(4));
      connection.onPacket = (buffer, start, end) => {
        if (!(start >= 4 && end - start > 10 && end <= buffer.length))
          throw new RangeError('packet');
        buffer.fill(0, start, end);
      };
    });
    for (const piece of split(random, stream)) socket.emit('data', piece);
    // A PONG replaces an earlier one; our CLOSE is short.
    await Promise.resolve();
    check(endings.length <= 1, `it ended ${endings.length} times`);
    check(
      socket.writtenBytes < 1_000 + 16 * stream.length,
      `it wrote ${socket.writtenBytes} bytes`
    );
    socket.emit('close');
    await connection.gone;
    // The content of a peer's CLOSE is arbitrary.
    return endings[0]!.startsWith('peer') ? 'peer' : endings[0]!;
  });
  if (process.env.VP_CASE === undefined) {
    expect(Object.keys(tally).sort()).toEqual(
      expect.arrayContaining(['network connection-lost', 'peer', 'us protocol-error'])
    );
  }
});

test('an unauthenticated peer before its HELLO may send one short frame only', {
  timeout: TIMEOUT_MS,
}, async () => {
  const pool = new SlabPool();
  await fuzz('unauthenticated peers', (random) => {
    const decoder = new FrameDecoder(handshakeLimits(FrameType.Hello), pool);
    let outcome = 'waits';
    for (const piece of split(random, edgeStream(random))) {
      const fault = decoder.push(piece, (type) => {
        outcome = `type ${type}`;
        return false;
      });
      if (fault !== FrameFault.None) outcome = `fault ${fault}`;
      if (outcome !== 'waits') break;
      const { byteLength } = decoder.space.buffer;
      check(byteLength <= pool.inlet.buffer.byteLength, `it holds ${byteLength} bytes`);
    }
    decoder.free();
    return outcome;
  });
});

const MESSAGES: readonly Json[] = [
  { type: 'ack', revision: 7 },
  { type: 'status', counters: { sentPackets: 1, 'tunnel.receivedBytes': 2 ** 40 } },
  { type: 'renew', csrPem: createSigningRequest(generateGatewayKey().privateKeyPem) },
  { type: 'trust', caPem: 'a PEM text', renew: true },
  { type: 'certificate', certificatePem: 'a PEM text', caPem: 'another' },
  { type: 'refusal', code: 'ERR_PRESENCE_CERTIFICATE', message: 'no' },
  {
    type: 'snapshot',
    snapshot: {
      revision: 3,
      site: 'site-a',
      sources: ['10.0.0.0/24'],
      pools: ['10.0.0.128/25', 'fd00::/64'],
      zone: 'a.test',
      ttlSeconds: 30,
      hosts: [{ name: 'bus.a.test', addresses: ['10.0.0.129'], ports: ['tcp/5672', 'icmp'] }],
      pointers: [{ address: '10.0.0.129', name: 'bus.a.test' }],
    },
  },
];

test('a control message is accepted or refused, and other sites and this process are not affected', {
  timeout: TIMEOUT_MS,
}, async () => {
  const scene = await startScene(DESIRED);
  const server = new ControlServer(scene.controller, {
    trust: {
      trust: () => ({ caPem: 'a PEM text', renew: false }),
      renew: () => Promise.reject(new CertificateError('not now')),
    },
  });
  const problems: Error[] = [];
  server.on('problem', ({ error }) => problems.push(error));
  const certificate = await anyCertificate();
  const faults: Error[] = [];
  const attach = (site: string): FakeChannel => {
    const channel = new FakeChannel();
    channel.certificate = certificate;
    server.attach(site, channel, (error) => faults.push(error));
    return channel;
  };
  const other = attach('site-b');
  other.receive({ type: 'ack', revision: 1 });
  const before = server.status('site-b');
  let channel = attach('site-a');

  const tally = await fuzz('control messages', async (random) => {
    const good = random.pick(MESSAGES);
    const kind = random.below(10);
    const message =
      kind === 0
        ? good
        : kind === 1
          ? anyJson(random)
          : kind < 5
            ? spoilText(random, good)
            : spoil(random, good);
    if (message === undefined) return 'no JSON';
    faults.length = 0;
    const outcome = outcomeOf(parseEdgeMessage, message);
    channel.receive(message);
    await Promise.resolve();
    channel.sent.length = 0;
    if (faults.length > 0) {
      check(faults.length === 1 && faults[0] instanceof PeerProtocolError, String(faults));
      channel = attach('site-a');
    } else {
      check(outcome !== 'refused', 'the server has taken what is refused');
    }
    return `${outcome} of an edge, ${outcomeOf(parseCloudMessage, message)} of a cloud`;
  });
  expect(problems).toEqual([]);
  expect(server.status('site-b')).toEqual(before);
  expect(Object.keys(server.status('site-a')!.counters).length).toBeLessThanOrEqual(256);
  expect(Object.keys(Object.prototype), 'names that all objects have').toEqual([]);
  if (process.env.VP_CASE === undefined) {
    expect(Object.keys(tally)).toEqual(expect.arrayContaining([...OUTCOMES]));
  }
  server.close();
  await scene.controller.close();
});

/** Returns the type of the message, as one side reads it. */
function outcomeOf(
  parse: (message: Json) => { readonly type: string } | undefined,
  message: Json
): string {
  try {
    return parse(message)?.type ?? 'unknown';
  } catch (error) {
    if (error instanceof PeerProtocolError) return 'refused';
    throw error;
  }
}

const EDGE_TYPES = ['ack', 'status', 'renew'];
const CLOUD_TYPES = ['trust', 'certificate', 'refusal', 'snapshot'];
const OUTCOMES: readonly string[] = [
  'refused of an edge, refused of a cloud',
  'unknown of an edge, unknown of a cloud',
  'refused of an edge, unknown of a cloud',
  ...EDGE_TYPES.map((type) => `${type} of an edge, unknown of a cloud`),
  ...CLOUD_TYPES.map((type) => `refused of an edge, ${type} of a cloud`),
];

async function anyCertificate(): Promise<X509Certificate> {
  const authority = await CertificateAuthority.open({
    ...generateCa({ trustDomain }),
    trustDomain,
    store: new MemoryStore(),
  });
  const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
  return new X509Certificate((await authority.issue(csrPem, identity)).certificatePem);
}
