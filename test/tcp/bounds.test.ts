/**
 * The bounds of an endpoint: what happens when one is reached, that it is counted, that other connections go on, and
 * that the endpoint recovers.
 */
import { describe, expect, test } from 'vitest';
import { type TcpConnection, TcpOpenError, TcpState } from '../../src/tcp/index.ts';
import { ACK, RST } from '../support/packets.ts';
import { A4, B4, EndpointPair, TestOwner } from './endpoint-pair.ts';
import { RawEnd, type RawPeer } from './raw-end.ts';
import { stream } from './stream.ts';

const KIB = 1_024;

/** Accepts connections and reads nothing by itself. */
class Acceptor {
  readonly connections: TcpConnection[] = [];
  readonly events: number[] = [];

  onTcpConnection(connection: TcpConnection): void {
    this.connections.push(connection);
    connection.owner = this;
  }

  onTcpEvents(_connection: TcpConnection, events: number): void {
    this.events.push(events);
  }

  last(): TcpConnection {
    return this.connections.at(-1)!;
  }
}

describe('the buffers of one connection', () => {
  test('hold no more than their bound, and the transfer goes on when they are read', () => {
    const limits = { connectionBufferBytes: 256 * KIB };
    const pair = new EndpointPair({ delayMs: 20, a: { limits }, b: { limits } });
    const server = new TestOwner();
    const client = new TestOwner();
    pair.b.listen(undefined, 80, server, 10);
    pair.a.connect(A4, 0, B4, 80, client);
    const bytes = Buffer.alloc(8 * 1_024 * KIB, 'a');
    client.send(bytes, true);
    let mostUnacknowledged = 0;
    const watch = (): boolean => {
      mostUnacknowledged = Math.max(mostUnacknowledged, client.connection?.unacknowledged ?? 0);
      return server.received.length > 15;
    };
    pair.run(watch);
    expect(mostUnacknowledged).toBe(256 * KIB);
    server.isReading = false;
    pair.run(() => false, 10_000);
    const held = server.connection!.available;
    expect(held).toBeGreaterThan(128 * KIB);
    expect(held).toBeLessThanOrEqual(256 * KIB);
    expect(pair.b.memory.used).toBeLessThanOrEqual(256 * KIB + 64 * KIB);
    expect(client.connection!.unacknowledged).toBe(256 * KIB);
    expect(pair.b.counters.dropNoMemory).toBe(0);
    server.isReading = true;
    server.read();
    pair.run();
    expect(server.bytes.equals(bytes)).toBe(true);
    expect(pair.a.memory.used + pair.b.memory.used).toBe(0);
  });
});

test('a peer that leaves one byte of each window gets no more than the bound', () => {
  const end = new RawEnd({ connectionBufferBytes: 64 * KIB });
  const acceptor = new Acceptor();
  end.endpoint.listen(undefined, 80, acceptor, 10);
  const peer = end.peer('10.0.0.2', 2_000, 80);
  let edge = peer.next + 65_535;
  for (let i = 0; i < 500; i++) {
    const length = Math.min(edge - peer.next - 1, 30_000);
    if (length > 0) peer.send(stream(0, length));
    peer.next += Math.max(length, 0);
    peer.send(stream(0, 1), -1);
    const { acknowledgement, window } = end.take().at(-1)!;
    edge = acknowledgement + window * 128;
  }
  expect(acceptor.last().available).toBeGreaterThan(60 * KIB);
  expect(acceptor.last().available).toBeLessThanOrEqual(64 * KIB);
});

describe('all buffers together', () => {
  test('take no more than their bound, and every connection still moves its data', () => {
    const limits = { bufferBytes: 512 * KIB };
    const pair = new EndpointPair({ b: { limits } });
    const servers: TestOwner[] = [];
    pair.b.listen(
      undefined,
      80,
      {
        onTcpConnection: (connection) => {
          const owner = new TestOwner();
          owner.isReading = false;
          servers.push(owner);
          owner.onTcpConnection(connection);
        },
      },
      100
    );
    const bytes = Buffer.from(stream(5, 100_000));
    const clients = Array.from({ length: 40 }, () => {
      const owner = new TestOwner();
      pair.a.connect(A4, 0, B4, 80, owner);
      owner.send(bytes, true);
      return owner;
    });
    pair.run(() => false, 20_000);
    expect(servers).toHaveLength(40);
    expect(pair.b.memory.isTight).toBe(true);
    expect(pair.b.memory.used).toBeLessThanOrEqual(512 * KIB);
    expect(pair.b.memory.usedSmall).toBeLessThanOrEqual(40 * 2 * 4 * KIB);
    // One that comes now, and is read, gets on with its own 4 KiB.
    const late = new TestOwner();
    pair.a.connect(A4, 0, B4, 80, late);
    late.send(bytes, true);
    pair.run(() => servers.length === 41);
    servers[40]!.isReading = true;
    servers[40]!.read();
    pair.run(() => servers[40]!.bytes.length === bytes.length, 20_000);
    expect(servers[40]!.bytes.equals(bytes)).toBe(true);
    expect(pair.b.counters.failed).toBe(0);
    for (const server of servers) {
      server.isReading = true;
      server.read();
      server.send(Buffer.alloc(0), true);
    }
    pair.run();
    for (const server of servers) expect(server.bytes.equals(bytes)).toBe(true);
    for (const client of clients) expect(client.isClosed).toBe(true);
    expect(pair.b.memory.used + pair.b.memory.usedSmall).toBe(0);
    expect(pair.b.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
  });
});

describe('out-of-order ranges', () => {
  test('are at most 256, the next is dropped and counted, and the holes can be filled', () => {
    const end = new RawEnd();
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 10);
    const peer = end.peer('10.0.0.2', 2_000, 80);
    const bytes = stream(0, 600);
    for (let i = 1; i < 600; i += 2) peer.send(bytes.subarray(i, i + 1), i);
    expect(end.endpoint.counters.dropTooManyRanges).toBe(300 - 256);
    expect(end.endpoint.memory.used + end.endpoint.memory.usedSmall).toBeLessThanOrEqual(4 * KIB);
    peer.send(bytes, 0);
    const connection = acceptor.last();
    expect(connection.available).toBe(600);
    const read = Buffer.alloc(600);
    connection.read(read, 0, 600);
    expect(read.equals(Buffer.from(bytes))).toBe(true);
    expect(end.endpoint.memory.usedSmall).toBe(0);
  });

  test('of one peer that are too many cost no other connection anything', () => {
    const end = new RawEnd();
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 10);
    const honest = end.peer('10.0.0.2', 2_000, 80);
    const waiting = acceptor.last();
    const bytes = stream(0, 3_000);
    honest.send(bytes.subarray(0, 1_000));
    honest.next += 1_000;
    // Its application is busy for two minutes. Then a segment is lost.
    end.pass(120_000);
    honest.send(bytes.subarray(2_000, 3_000), 1_000);
    const hostile = end.peer('10.0.0.66', 2_000, 80);
    for (let i = 1; i < 600; i += 2) hostile.send(bytes.subarray(i, i + 1), i);
    expect(waiting.state).toBe(TcpState.Established);
    honest.send(bytes.subarray(1_000, 2_000));
    expect(waiting.available).toBe(3_000);
  });
});

// The state of a connection whose application is busy, while another peer does harm.
test('too many ranges of one peer do not reset a connection that somebody else has', () => {
  const end = new RawEnd();
  const acceptor = new Acceptor();
  end.endpoint.listen(undefined, 80, acceptor, 10);
  end.peer('10.0.0.2', 2_000, 80).send(stream(0, 1_000));
  const waiting = acceptor.last();
  end.pass(120_000);
  const hostile = end.peer('10.0.0.66', 2_000, 80);
  for (let i = 1; i < 600; i += 2) hostile.send(stream(i, 1), i);
  expect([waiting.state, waiting.failure]).toEqual([TcpState.Established, undefined]);
});

describe('the MSS of a peer', () => {
  test.each([0, 1, 47])('counts as 48 if it is %i', (mss) => {
    const end = new RawEnd();
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 10);
    const peer = end.peer('10.0.0.2', 2_000, 80, { mss });
    acceptor.last().write(Buffer.alloc(4_800));
    let count = 0;
    let bytes = 0;
    for (let round = 0; round < 100 && bytes < 4_800; round++) {
      const sent = end.take();
      count += sent.reduce((sum, { payload }) => sum + Math.ceil(payload.length / 48), 0);
      bytes += peer.acknowledge(sent);
      end.now += 1;
      end.endpoint.advance();
    }
    expect(bytes).toBe(4_800);
    expect(count).toBeLessThanOrEqual(101);
  });
});

describe('connections', () => {
  test('beyond the bound fail with ENOBUFS or are not accepted, until others have ended', () => {
    const limits = { connections: 4 };
    const pair = new EndpointPair({ b: { limits } });
    const acceptor = new Acceptor();
    pair.b.listen(undefined, 80, acceptor, 10);
    pair.a.listen(undefined, 80, new Acceptor(), 10);
    const owners = Array.from({ length: 3 }, () => new TestOwner());
    const far = owners.map((owner) => pair.a.connect(A4, 0, B4, 80, owner));
    pair.run(() => acceptor.connections.length === 3);
    const own = pair.b.connect(B4, 0, A4, 80, new TestOwner());
    expect(() => pair.b.connect(B4, 0, A4, 80, new TestOwner())).toThrow(TcpOpenError);
    const late = pair.a.connect(A4, 0, B4, 80, new TestOwner());
    pair.run(() => false, 500);
    expect(late.state).toBe(TcpState.SynSent);
    expect(pair.b.counters.dropSyn).toBeGreaterThan(0);
    expect(pair.b.sizes.connections).toBe(4);
    for (const connection of far) expect(connection.state).toBe(TcpState.Established);
    own.abort();
    pair.run(() => late.state === TcpState.Established, 10_000);
    expect(late.state).toBe(TcpState.Established);
  });

  test('never exceed the bound, also if half-open ones are completed meanwhile', () => {
    const end = new RawEnd({ connections: 4 });
    end.endpoint.listen(undefined, 80, new Acceptor(), 10);
    const remote = B4;
    const synAcks = [1, 2, 3].map((port) => {
      end.receive('10.0.0.2', port, 80, { sequence: 7, flags: 2 });
      return end.take()[0]!;
    });
    let opened = 0;
    for (let i = 0; i < 4; i++) {
      try {
        end.endpoint.connect(A4, 0, remote, 80, new TestOwner());
        opened++;
      } catch (error) {
        expect(error).toBeInstanceOf(TcpOpenError);
      }
    }
    expect(opened).toBeGreaterThan(0);
    for (const [i, synAck] of synAcks.entries()) {
      const acknowledgment = synAck.sequence + 1;
      end.receive('10.0.0.2', i + 1, 80, { sequence: 8, acknowledgment, flags: ACK });
    }
    expect(end.endpoint.sizes.connections).toBeLessThanOrEqual(4);
  });

  test('wait for the backlog of their listener, and other listeners are not concerned', () => {
    const pair = new EndpointPair();
    const held: TcpConnection[] = [];
    // The events are not taken: nobody accepts.
    const owner = { onTcpConnection: (connection: TcpConnection) => void held.push(connection) };
    const listener = pair.b.listen(undefined, 80, owner, 3);
    const { takeEvents } = pair.b;
    pair.b.takeEvents = () => {};
    const clients = Array.from({ length: 6 }, () => pair.a.connect(A4, 0, B4, 80, new TestOwner()));
    pair.run(() => false, 500);
    expect(listener.waiting).toBe(3);
    expect(pair.b.counters.dropSyn).toBeGreaterThanOrEqual(3);
    const free = new TestOwner();
    pair.b.listen(undefined, 81, free, 3);
    const other = pair.a.connect(A4, 0, B4, 81, new TestOwner());
    pair.run(() => other.state === TcpState.Established, 500);
    expect(other.state).toBe(TcpState.Established);
    pair.b.takeEvents = takeEvents;
    pair.run(() => held.length === 6, 30_000);
    expect(held).toHaveLength(6);
    for (const client of clients) expect(client.state).toBe(TcpState.Established);
  });
});

describe('TIME-WAIT', () => {
  test('has a bound, and the oldest entries go', () => {
    const pair = new EndpointPair({ a: { limits: { timeWait: 4 } } });
    const server = new TestOwner();
    pair.b.listen(undefined, 80, server, 10);
    const ports: number[] = [];
    for (let i = 0; i < 6; i++) {
      const client = new TestOwner();
      const connection = pair.a.connect(A4, 0, B4, 80, client);
      ports.push(connection.flow.localPort);
      client.send(Buffer.from('x'), true);
      pair.run(() => client.connection?.state === TcpState.FinWait2, 1_000);
      server.connection!.shutdown();
      pair.run(() => client.isClosed, 1_000);
      pair.run(() => server.isClosed, 1_000);
    }
    expect(pair.a.sizes.timeWait).toBe(4);
    // The ports of the oldest can be used at once.
    const again = pair.a.connect(A4, ports[0]!, B4, 80, new TestOwner());
    expect(() => pair.a.connect(A4, ports[5]!, B4, 80, new TestOwner())).toThrow(TcpOpenError);
    pair.run(() => again.state === TcpState.Established, 1_000);
    expect(again.state).toBe(TcpState.Established);
    again.abort();
    pair.run(() => false, 61_000);
    expect(pair.a.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
  });
});

describe('answers', () => {
  test('that challenge are one in 500 ms for each connection', () => {
    const end = new RawEnd();
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 10);
    const one = end.peer('10.0.0.2', 2_000, 80);
    const other = end.peer('10.0.0.3', 2_000, 80);
    const challenges = (): number => end.take().filter(({ flags }) => flags === ACK).length;
    for (let i = 1; i <= 100; i++) one.send(undefined, i, { flags: RST });
    expect(challenges()).toBe(1);
    other.send(undefined, 5, { flags: RST });
    expect(challenges()).toBe(1);
    end.pass(499);
    one.send(undefined, 5, { flags: RST });
    expect(challenges()).toBe(0);
    end.pass(1);
    one.send(undefined, 5, { flags: RST });
    expect(challenges()).toBe(1);
    expect(end.endpoint.counters.challengeAcks).toBe(3);
    for (const connection of acceptor.connections)
      expect(connection.state).toBe(TcpState.Established);
  });

  test('that reset are 1,000 in a second, and the rest is counted', () => {
    const end = new RawEnd();
    let resets = 0;
    const flood = (): void => {
      for (let i = 0; i < 1_500; i++) {
        end.receive('10.0.0.2', 1_000 + i, 81, { sequence: 1, acknowledgment: 2, flags: ACK });
        if (i % 100 === 0) resets += end.take().length;
      }
      resets += end.take().length;
    };
    flood();
    expect(resets).toBe(1_000);
    expect(end.endpoint.counters.dropAnswers).toBe(500);
    end.now += 1_000;
    end.endpoint.advance();
    flood();
    expect(resets).toBe(2_000);
  });

  test('that reset are a quarter of those in a second for one group', () => {
    const end = new RawEnd();
    end.endpoint.groupOf = (remote) => (remote.toString() === '10.0.0.2' ? 'a' : 'b');
    const flood = (source: string): number => {
      for (let i = 0; i < 400; i++) {
        end.receive(source, 1_000 + i, 81, { sequence: 1, acknowledgment: 2, flags: ACK });
      }
      return end.take().length;
    };
    expect(flood('10.0.0.2')).toBe(250);
    expect(flood('10.0.0.3')).toBe(250);
    expect(flood('10.0.0.3')).toBe(0);
  });

  test('that are dropped do not count as resets', () => {
    const end = new RawEnd({ resetsPerSecond: 10 });
    for (let i = 0; i < 15; i++) {
      end.receive('10.0.0.2', 1_000 + i, 81, { sequence: 1, acknowledgment: 2, flags: ACK });
    }
    expect(end.endpoint.counters.resets).toBe(end.take().length);
  });

  test('that nobody takes are at most 1,024', () => {
    const end = new RawEnd({ resetsPerSecond: 100_000 });
    for (let i = 0; i < 5_000; i++) {
      end.receive('10.0.0.2', 1_000 + i, 81, { sequence: 1, acknowledgment: 2, flags: ACK });
    }
    expect(end.take()).toHaveLength(1_024);
    expect(end.endpoint.counters.dropAnswers).toBe(5_000 - 1_024);
  });

  test('to a flood do not keep back the reset of a connection that the program ends', () => {
    const end = new RawEnd();
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 10);
    end.peer('10.0.0.2', 2_000, 80);
    for (let i = 0; i < 1_500; i++) {
      end.receive('10.0.0.66', 1_000 + i, 81, { sequence: 1, acknowledgment: 2, flags: ACK });
      end.take();
    }
    acceptor.last().abort();
    expect(end.take().map(({ to }) => to)).toEqual(['10.0.0.2']);
  });
});

test('a program that resets more connections at once than answers are allowed sends all resets', () => {
  const end = new RawEnd();
  const acceptor = new Acceptor();
  end.endpoint.listen(undefined, 80, acceptor, 2_000);
  for (let i = 0; i < 1_500; i++) end.peer('10.0.0.2', 2_000 + i, 80);
  for (const connection of acceptor.connections) connection.abort();
  expect(end.take().filter(({ flags }) => (flags & RST) !== 0)).toHaveLength(1_500);
});

describe('when there is no memory', () => {
  interface Pressed {
    readonly end: RawEnd;
    readonly acceptor: Acceptor;
    readonly peers: readonly RawPeer[];
  }

  /** Four peers have sent what nobody reads, the third most of all; a fifth has sent nothing yet. */
  function press(): Pressed {
    const end = new RawEnd({ bufferBytes: 64 * KIB });
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 10);
    const peers = Array.from({ length: 5 }, (_, i) => end.peer(`10.0.0.${2 + i}`, 3_000, 80));
    for (const [i, length] of [3_000, 3_000, 65_000, 3_000].entries()) {
      peers[i]!.send(stream(0, length));
    }
    end.take();
    return { end, acceptor, peers };
  }

  test('the connection without progress that holds most is reset, and no other', () => {
    const { end, acceptor, peers } = press();
    expect(end.endpoint.memory.used).toBe(64 * KIB);
    const active = peers[4]!;
    active.send(stream(0, 10_000));
    expect(acceptor.last().available).toBe(4 * KIB);
    expect(end.endpoint.counters.failed).toBe(0);
    end.pass(61_000);
    active.send(stream(4 * KIB, 6_000), 4 * KIB);
    const failures = acceptor.connections.map(({ failure }) => failure);
    expect(failures).toEqual([undefined, undefined, 'evicted', undefined, undefined]);
    expect(end.endpoint.counters.failed).toBe(1);
    expect(end.take().filter(({ flags }) => (flags & RST) !== 0)).toHaveLength(1);
  });

  test('a connection that goes on slowly is helped although no payload is dropped', () => {
    const { end, acceptor, peers } = press();
    const active = peers[4]!;
    const owner = acceptor.last();
    for (let second = 0; second < 600; second++) {
      active.send(stream(0, 1_000));
      active.next += 1_000;
      owner.read(Buffer.alloc(1_000), 0, 1_000);
      end.pass(1_000);
    }
    expect(end.endpoint.memory.isTight).toBe(false);
  });

  test('because peers keep their windows closed, one of them is reset too', () => {
    const end = new RawEnd({ bufferBytes: 256 * KIB });
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 10);
    const active = end.peer('10.0.0.9', 2_000, 80);
    const owner = acceptor.last();
    const hostile = Array.from({ length: 4 }, (_, i) =>
      end.peer('10.0.0.66', 3_000 + i, 80, { window: 0 })
    );
    for (const connection of acceptor.connections.slice(1)) {
      connection.write(Buffer.alloc(64 * KIB));
    }
    expect(end.endpoint.memory.used).toBe(256 * KIB);
    // They answer each probe: they are alive, but nothing goes on.
    for (let second = 0; second < 120; second++) {
      end.pass(1_000);
      for (const peer of hostile) peer.send();
    }
    active.send(stream(0, 10_000));
    active.send(stream(4 * KIB, 6_000), 4 * KIB);
    expect(owner.available).toBe(4 * KIB + 6_000);
  });

  test('a group takes a quarter of it, and its own connections make room', () => {
    const end = new RawEnd({ bufferBytes: 1_024 * KIB });
    end.endpoint.groupOf = (remote) => (remote.toString() === '10.0.0.9' ? 'quiet' : 'hostile');
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 100);
    const other = end.peer('10.0.0.9', 2_000, 80);
    other.send(stream(0, 3_000));
    const hostile = Array.from({ length: 8 }, (_, i) => end.peer(`10.0.0.${20 + i}`, 3_000, 80));
    for (const peer of hostile) peer.send(stream(0, Math.min(peer.offered, 64_000)));
    expect(end.endpoint.memory.used).toBe(256 * KIB);
    expect(end.endpoint.memory.isTight).toBe(false);
    const late = end.peer('10.0.0.30', 3_000, 80);
    expect(late.offered).toBe(4 * KIB);
    expect(end.peer('10.0.0.9', 2_001, 80).offered).toBeGreaterThan(60_000);
    end.pass(61_000);
    late.send(stream(0, 4 * KIB));
    const failures = acceptor.connections.map(({ failure }) => failure);
    expect(failures.filter((failure) => failure === 'evicted')).toHaveLength(1);
    // Not that of the other group, although it has made no progress either.
    expect(failures[0]).toBe(undefined);
    for (const connection of acceptor.connections) {
      connection.abort();
      connection.release();
    }
    expect(end.endpoint.memory.used + end.endpoint.memory.usedSmall).toBe(0);
  });

  test('the window that a SYN-ACK has offered stays as it was', () => {
    const end = new RawEnd({ bufferBytes: 256 * KIB });
    const acceptor = new Acceptor();
    end.endpoint.listen(undefined, 80, acceptor, 10);
    for (let i = 0; i < 3; i++) end.peer('10.0.0.2', 3_000 + i, 80).send(stream(0, 40_000));
    const { memory } = end.endpoint;
    expect([memory.isTight, memory.limit - memory.used]).toEqual([true, 64 * KIB]);
    const late = end.peer('10.0.0.99', 3_000, 80);
    expect(late.offered).toBe(4 * KIB);
    late.send(stream(0, late.offered));
    expect(acceptor.last().available).toBe(late.offered);
  });
});
