/**
 * Peers that do odd things, rightly or not, and what an endpoint must make of them.
 */
import { expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { ApiMisuseError } from '../../src/errors.ts';
import type { ControlBlock } from '../../src/tcp/control-block.ts';
import {
  type TcpConnection,
  TcpEndpoint,
  type TcpEndpointOptions,
  TcpEvent,
  TcpState,
} from '../../src/tcp/index.ts';
import { seqAdd, seqDistance } from '../../src/tcp/sequence.ts';
import { ACK, FIN, RST, SYN } from '../support/packets.ts';
import { A4, B4, EndpointPair, TestOwner } from './endpoint-pair.ts';
import { type PeerOptions, RawEnd, type RawPeer, type Sent } from './raw-end.ts';
import { stream } from './stream.ts';

interface Opened {
  readonly end: RawEnd;
  readonly peer: RawPeer;
  readonly connection: TcpConnection;
  readonly block: ControlBlock;
}

/** An established connection that a peer has opened, with its control block. */
function opened(options: PeerOptions = {}, endpoint: Partial<TcpEndpointOptions> = {}): Opened {
  const end = new RawEnd({}, endpoint);
  const blocks: ControlBlock[] = [];
  const { host } = end.endpoint;
  const update = host.update.bind(host);
  host.update = (block) => {
    blocks.push(block);
    update(block);
  };
  const connections: TcpConnection[] = [];
  end.endpoint.listen(
    undefined,
    80,
    {
      onTcpConnection: (connection) => {
        connections.push(connection);
        connection.owner = { onTcpEvents: () => {} };
      },
    },
    10
  );
  const peer = end.peer('10.0.0.2', 2_000, 80, options);
  host.update = update;
  return { end, peer, connection: connections[0]!, block: blocks[0]! };
}

function payloadOf(sent: readonly Sent[]): number {
  return sent.reduce((sum, { payload }) => sum + payload.length, 0);
}

test.each([true, false])(
  'data goes on while SACK blocks take room in each segment (offload %s)',
  (offload) => {
    const { end, peer, connection } = opened({}, { offload, mtu: 1_500 });
    peer.send(stream(100, 50), 100);
    end.take();
    connection.write(Buffer.alloc(20_000));
    // A second hole, so that each segment has two blocks to report.
    peer.send(stream(300, 50), 300);
    let bytes = 0;
    for (let round = 0; round < 20; round++) {
      const sent = end.take();
      bytes += peer.acknowledge(sent);
      end.now += 1;
      end.endpoint.advance();
    }
    expect(bytes).toBe(20_000);
  }
);

test('a segment that is sent again beside SACK blocks is no longer than the path takes', () => {
  const { end, peer, connection } = opened({}, { offload: false, mtu: 1_500 });
  connection.write(Buffer.alloc(1_460));
  expect(payloadOf(end.take())).toBe(1_460);
  for (let i = 1; i < 8; i += 2) peer.send(stream(i, 1), i);
  const lengths: number[] = [];
  for (let second = 0; second < 5; second++) {
    end.now = end.endpoint.deadline;
    end.endpoint.expire();
    lengths.push(...end.take().map(({ payload, optionsLength }) => payload.length + optionsLength));
  }
  expect(lengths.some((length) => length > 500)).toBe(true);
  expect(Math.max(...lengths)).toBeLessThanOrEqual(1_460);
});

test('the first packet that the device refuses reduces the congestion window, whatever the numbers', () => {
  const signs = new Set<boolean>();
  for (let port = 1; port < 40; port++) {
    const end = new RawEnd();
    const connections: TcpConnection[] = [];
    const onTcpConnection = (connection: TcpConnection): number => connections.push(connection);
    end.endpoint.listen(undefined, 80, { onTcpConnection }, 10);
    const peer = end.peer('10.0.0.2', port, 80);
    signs.add((peer.expected | 0) < 0);
    connections[0]!.write(Buffer.alloc(64_000));
    end.endpoint.read(Buffer.alloc(70_000), 0);
    end.endpoint.refused();
    end.now += 100;
    end.endpoint.expire();
    expect(payloadOf(end.take())).toBeLessThanOrEqual(0.7 * 14_600);
  }
  expect(signs.size).toBe(2);
});

test('a short write is sent at once although the last one was 2^31 bytes ago', () => {
  const { end, connection, block } = opened();
  block.smallEnd = seqAdd(block.sndUna, 2 ** 31 - 1);
  connection.write(Buffer.alloc(10));
  expect(payloadOf(end.take())).toBe(10);
});

test('without window scaling, reads do not cause ACKs that say nothing new', () => {
  const { end, peer, connection } = opened({ scale: -1 });
  let acks = 0;
  for (let burst = 0; burst < 80; burst++) {
    for (let i = 0; i < 2; i++) {
      peer.send(stream(0, 14_600));
      peer.next += 14_600;
    }
    acks += end.take().length;
    expect(connection.available).toBe(29_200);
    for (let i = 0; i < 292; i++) {
      connection.read(Buffer.alloc(100), 0, 100);
      acks += end.take().length;
    }
    // Eight bursts in a round trip make a window of more than the field can say.
    if (burst % 8 === 7) end.now += 5;
    end.endpoint.advance();
  }
  expect(acks).toBeLessThanOrEqual(80 * 3);
});

test('a connection of ours that follows one in TIME-WAIT takes its place, with later numbers', () => {
  const pair = new EndpointPair();
  const server = new TestOwner();
  pair.b.listen(undefined, 80, server, 10);
  const first = new TestOwner();
  const { flow } = pair.a.connect(A4, 40_000, B4, 80, first);
  // More than the clock of sequence numbers counts in the time.
  first.send(Buffer.alloc(3_000_000), true);
  pair.log = [];
  pair.run(() => (server.events & TcpEvent.ReadEnded) !== 0);
  server.send(Buffer.alloc(0), true);
  pair.run(() => pair.a.sizes.timeWait > 0);
  expect(pair.a.sizes.timeWait).toBe(1);
  const last = pair.log.filter(({ from }) => from === 'a').at(-1)!;
  const numberOf = (frame: Buffer): number => frame.readInt32BE(10 + 20 + 4);
  pair.now += 1_500;
  pair.log = [];
  const second = new TestOwner();
  pair.a.connect(A4, flow.localPort, B4, 80, second);
  expect(pair.a.sizes.timeWait).toBe(0);
  pair.settle();
  expect(seqDistance(numberOf(last.frame), numberOf(pair.log[0]!.frame))).toBeGreaterThan(0);
  pair.run(() => (second.events & TcpEvent.Connected) !== 0, 1_000);
  expect(second.events & TcpEvent.Connected).not.toBe(0);
});

test('a peer that closes its window over what is outstanding, and answers, is not given up', () => {
  const { end, peer, connection } = opened();
  connection.setUserTimeout(10_000);
  connection.write(Buffer.alloc(5_000));
  end.take();
  for (let second = 0; second < 60; second++) {
    peer.send(new Uint8Array(0), 0, { window: 0 });
    end.pass(1_000);
  }
  expect(connection.state).toBe(TcpState.Established);
  end.pass(11_000);
  expect(connection.failure).toBe('timed-out');
});

test('an ACK is within the window of a peer that has moved its right edge back', () => {
  const { end, peer, connection, block } = opened();
  connection.write(Buffer.alloc(5_000));
  expect(payloadOf(end.take())).toBe(5_000);
  peer.send(stream(0, 3_000), 0, { window: 0 });
  const [ack] = end.take();
  expect(ack!.acknowledgement | 0).toBe(seqAdd(peer.next, 3_000));
  expect(ack!.sequence | 0).toBe(block.sndUna);
  connection.abort();
  const [reset] = end.take();
  expect(reset!.flags & RST).toBe(RST);
  expect(reset!.sequence | 0).toBe(block.sndUna);
});

test('what a peer has sent behind its FIN takes no memory', () => {
  const { end, peer, connection } = opened();
  peer.send(stream(200, 1_000), 200);
  peer.send(stream(0, 100), 0, { flags: FIN | ACK });
  expect(connection.available).toBe(100);
  expect(connection.isReadEnded).toBe(true);
  connection.read(Buffer.alloc(100), 0, 100);
  expect(end.endpoint.memory.used + end.endpoint.memory.usedSmall).toBe(0);
});

test('keepalive finds out that the peer of a half-closed connection is gone', () => {
  const { end, peer, connection } = opened();
  connection.setKeepAlive(60_000);
  connection.shutdown();
  const [fin] = end.take();
  expect(fin!.flags & FIN).toBe(FIN);
  peer.expected++;
  peer.send();
  expect(connection.state).toBe(TcpState.FinWait2);
  end.pass(60_000 + 11_000);
  expect(connection.failure).toBe('timed-out');
});

test('keepalive does not end an attempt to connect', () => {
  const end = new RawEnd();
  const connection = end.endpoint.connect(A4, 0, B4, 80, { onTcpEvents: () => {} });
  connection.setKeepAlive(1_000);
  end.pass(60_000);
  expect(connection.state).toBe(TcpState.SynSent);
});

test('a timestamp of 0 that a peer echoes always is none', () => {
  for (let port = 1; port < 30; port++) {
    const end = new RawEnd();
    const connections: TcpConnection[] = [];
    const onTcpConnection = (connection: TcpConnection): number => connections.push(connection);
    end.endpoint.listen(undefined, 80, { onTcpConnection }, 10);
    const tcpOptions = Uint8Array.from([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
    const address = `10.0.0.${port + 1}`;
    end.receive(address, 7, 80, { sequence: 1, flags: SYN, tcpOptions });
    const [synAck] = end.take();
    const acknowledgment = seqAdd(synAck!.sequence, 1) >>> 0;
    const segment = { sequence: 2, flags: ACK, window: 60_000, tcpOptions };
    end.receive(address, 7, 80, { ...segment, acknowledgment });
    end.endpoint.takeEvents();
    connections[0]!.write(Buffer.alloc(1_000));
    // Lost three times; then the peer acknowledges it.
    end.pass(3_000);
    expect(end.endpoint.counters.timeouts).toBeGreaterThan(1);
    end.receive(address, 7, 80, {
      ...segment,
      acknowledgment: seqAdd(acknowledgment, 1_000) >>> 0,
    });
    expect(connections[0]!.unacknowledged).toBe(0);
    expect(end.endpoint.counters.undone).toBe(0);
    expect(connections[0]!.rttMs).toBeLessThan(1_000);
  }
});

test('a new connection asks for the path MTU, an old one follows the report', () => {
  const known = new Map([['10.0.0.2', 1_400]]);
  const pathMtu = (remote: { toString(): string }): number => known.get(remote.toString()) ?? 0;
  const far = opened({}, { pathMtu, mtu: 1_500, offload: false });
  far.connection.write(Buffer.alloc(3_000));
  expect(Math.max(...far.end.take().map(({ payload }) => payload.length))).toBe(1_360);
  known.set('10.0.0.2', 100);
  const tiny = opened({}, { pathMtu, mtu: 1_500, offload: false });
  tiny.connection.write(Buffer.alloc(3_000));
  expect(Math.max(...tiny.end.take().map(({ payload }) => payload.length))).toBe(512);
});

test('options out of their range are a misuse', () => {
  for (const mtu of [0, 1_279, 65_516, 1_500.5, Number.NaN]) {
    expect(() => new TcpEndpoint({ clock: systemClock, mtu })).toThrow(ApiMisuseError);
  }
  for (const connections of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => new TcpEndpoint({ clock: systemClock, limits: { connections } })).toThrow(
      ApiMisuseError
    );
  }
});

test('the caller learns of the deadlines of handshakes and of TIME-WAIT', () => {
  const end = new RawEnd();
  let announced = 0;
  end.endpoint.onDeadline = () => announced++;
  end.endpoint.listen(undefined, 80, { onTcpConnection: () => {} }, 10);
  expect(end.endpoint.deadline).toBe(Number.POSITIVE_INFINITY);
  end.receive('10.0.0.2', 7, 80, { sequence: 1, flags: SYN });
  expect(announced).toBe(1);
  expect(end.endpoint.deadline).toBeLessThanOrEqual(end.now + 1_000);
});

test('a SYN that the device refuses is sent soon, and is no repetition', () => {
  const end = new RawEnd();
  const connection = end.endpoint.connect(A4, 0, B4, 80, { onTcpEvents: () => {} });
  const buffer = Buffer.alloc(70_000);
  expect(end.endpoint.read(buffer, 0)).toBeGreaterThan(0);
  end.endpoint.refused();
  expect(end.endpoint.read(buffer, 0)).toBe(0);
  end.now += 100;
  end.endpoint.expire();
  const [syn] = end.take();
  expect(syn!.flags).toBe(SYN);
  expect(connection.state).toBe(TcpState.SynSent);
});
