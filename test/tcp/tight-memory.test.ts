/**
 * What an endpoint does while its memory is tight or used up: everybody gets on with a little, and only who holds much
 * for nothing is reset.
 */
import { describe, expect, test } from 'vitest';
import type { TcpConnection } from '../../src/tcp/index.ts';
import { ACK, FIN, RST } from '../support/packets.ts';
import { RawEnd, type RawPeer } from './raw-end.ts';
import { stream } from './stream.ts';

const KIB = 1_024;

/** Accepts connections and reads nothing by itself. */
class Acceptor {
  readonly connections: TcpConnection[] = [];

  onTcpConnection(connection: TcpConnection): void {
    this.connections.push(connection);
    connection.owner = { onTcpEvents: () => {} };
  }
}

interface Site {
  readonly end: RawEnd;
  readonly acceptor: Acceptor;
}

function site(bufferBytes: number): Site {
  const end = new RawEnd({ bufferBytes });
  const acceptor = new Acceptor();
  end.endpoint.listen(undefined, 80, acceptor, 200);
  return { end, acceptor };
}

/** Peers whose data nobody reads: each costs a slab of 64 KiB. */
function hogs({ end }: Site, count: number): RawPeer[] {
  // While memory is tight, new connections are offered less.
  const opened = Array.from({ length: count }, (_, i) => end.peer(`10.0.1.${i}`, 2_000, 80));
  for (const hog of opened) {
    hog.send(stream(0, 60_000));
    hog.next += 60_000;
    end.take();
  }
  return opened;
}

const scratch = Buffer.alloc(70_000);

/** Reads all that a connection has. */
function readAll(connection: TcpConnection): number {
  return connection.read(scratch, 0, scratch.length);
}

describe('the window of a connection that is read', () => {
  test('opens again while memory is tight, also for a peer that has sent super-segments', () => {
    const one = site(512 * KIB);
    const { end, acceptor } = one;
    const peer = end.peer('10.0.0.2', 2_000, 80);
    const connection = acceptor.connections[0]!;
    peer.send(stream(0, 20_000));
    peer.next += 20_000;
    readAll(connection);
    let [edge] = [0];
    const learn = (): void => {
      for (const { to, acknowledgement, window } of end.take()) {
        if (to === '10.0.0.2') edge = acknowledgement + window * 128;
      }
    };
    learn();
    hogs(one, 7);
    expect(end.endpoint.memory.isTight).toBe(true);
    let moved = 0;
    for (let i = 0; i < 200; i++) {
      const length = Math.min(1_460, edge - peer.next);
      if (length === 0) break;
      peer.send(stream(0, length));
      peer.next += length;
      moved += readAll(connection);
      end.pass(0);
      end.endpoint.advance();
      peer.send(stream(0, 1), -1);
      learn();
    }
    expect(edge - peer.next).toBeGreaterThanOrEqual(2 * KIB);
    expect(moved).toBeGreaterThan(200 * 1_000);
    for (const hog of acceptor.connections.slice(1)) readAll(hog);
    peer.send(stream(0, 1_460));
    peer.next += 1_460;
    readAll(connection);
    peer.send(stream(0, 1), -1);
    learn();
    expect(edge - peer.next).toBeGreaterThan(60_000);
  });
});

describe('a connection that is reset for its memory', () => {
  test('holds much, and moves no more than a byte now and then', () => {
    const one = site(1_024 * KIB);
    const { end, acceptor } = one;
    const honest = Array.from({ length: 40 }, (_, i) => {
      const peer = end.peer('10.0.0.2', 2_000 + i, 80);
      peer.send(stream(0, 100));
      return acceptor.connections.at(-1)!;
    });
    const slow = Array.from({ length: 12 }, (_, i) => {
      const peer = end.peer('10.0.0.66', 2_000 + i, 80);
      acceptor.connections.at(-1)!.write(Buffer.alloc(64 * KIB));
      return peer;
    });
    expect(end.endpoint.memory.isTight).toBe(true);
    for (let second = 0; second < 120; second++) {
      end.pass(1_000);
      for (const peer of slow) {
        if (second % 30 === 0) peer.expected++;
        peer.send();
      }
      end.take();
    }
    expect(honest.map(({ failure }) => failure)).toEqual(new Array(40).fill(undefined));
    expect(end.endpoint.memory.isTight).toBe(false);
    // No more than needed.
    const evicted = acceptor.connections.filter(({ failure }) => failure === 'evicted');
    expect(evicted).toHaveLength(1);
  });

  test('is not one that was idle and has begun to send', () => {
    const one = site(256 * KIB);
    const { end, acceptor } = one;
    const peer = end.peer('10.0.0.2', 2_000, 80);
    const idle = acceptor.connections[0]!;
    end.pass(120_000);
    hogs(one, 2);
    idle.write(Buffer.alloc(64 * KIB));
    expect(end.endpoint.memory.isTight).toBe(true);
    end.pass(1_000);
    peer.send();
    expect(idle.failure).toBe(undefined);
  });
});

describe('what ended connections have left unread', () => {
  test.each([
    ['a reset', RST, 'reset'],
    ['a FIN', ACK | FIN, 'evicted'],
  ])(
    'makes room after a minute, and no end of the stream seems to follow: %s',
    (_how, flags, failure) => {
      const one = site(512 * KIB);
      const { end, acceptor } = one;
      const ended = hogs(one, 8);
      for (const connection of acceptor.connections) connection.shutdown();
      const fins = end.take().filter((sent) => (sent.flags & FIN) !== 0);
      for (const peer of ended) {
        peer.expected = fins.find(({ to }) => to === peer.address)!.sequence + 1;
        peer.send(undefined, 0, { flags });
      }
      expect(end.endpoint.sizes.connections).toBe(0);
      expect(end.endpoint.memory.used).toBe(512 * KIB);
      end.take();
      const honest = end.peer('10.0.0.2', 2_000, 80);
      const reader = acceptor.connections.shift()!;
      for (let second = 0; second < 70; second++) {
        end.pass(1_000);
        honest.send(stream(0, 1), -1);
        // One is read slowly: it stays.
        reader.read(scratch, 0, 100);
      }
      expect(end.endpoint.memory.isTight).toBe(false);
      expect(reader.available).toBe(60_000 - 7_000);
      const left = acceptor.connections.slice(0, 7);
      const evicted = left.filter(({ available }) => available === 0);
      expect(evicted.length).toBeGreaterThan(0);
      for (const each of evicted)
        expect([each.failure, each.isReadEnded]).toEqual([failure, false]);
      reader.read(scratch, 0, 60_000);
      for (const each of acceptor.connections) each.release();
      expect(end.endpoint.memory.used).toBe(0);
    }
  );
});

describe('what came out of order', () => {
  /** An honest peer has sent 30,000 bytes behind a hole; memory is tight, and used up if `count` is 7. */
  function pressed(count: number): [Site, RawPeer, TcpConnection, RawPeer] {
    const one = site(512 * KIB);
    const hostile = one.end.peer('10.0.0.66', 2_000, 80);
    const peer = one.end.peer('10.0.0.2', 2_000, 80);
    peer.send(stream(20_000, 30_000), 20_000);
    hogs(one, count);
    expect(one.end.endpoint.memory.isTight).toBe(true);
    one.end.pass(2_000);
    return [one, peer, one.acceptor.connections[1]!, hostile];
  }

  test.each([
    [
      'ranges without number',
      (hostile: RawPeer) => {
        for (let i = 1; i < 600; i += 2) hostile.send(stream(i, 1), i);
      },
    ],
    ['a range that needs a slab', (hostile: RawPeer) => hostile.send(stream(0, 1), 60_000)],
  ])('stays while a slab is left, whatever another peer sends: %s', (_what, send) => {
    const [{ end }, peer, connection, hostile] = pressed(5);
    send(hostile);
    expect(
      end.endpoint.counters.dropNoMemory + end.endpoint.counters.dropTooManyRanges
    ).toBeGreaterThan(0);
    peer.send(stream(0, 20_000));
    expect(connection.available).toBe(50_000);
  });

  test('makes room when memory is used up', () => {
    const [{ end, acceptor }, , , other] = pressed(7);
    expect(end.endpoint.memory.canTakeLarge(1)).toBe(false);
    other.send(stream(0, 6_000));
    for (let i = 0; i < 2; i++) other.send(stream(4 * KIB, 1_904), 4 * KIB);
    expect(acceptor.connections[0]!.available).toBe(6_000);
  });
});

test('payload that finds no memory is acknowledged as far as it was stored, at once and each time', () => {
  const one = site(64 * KIB);
  const { end } = one;
  const peer = end.peer('10.0.0.2', 2_000, 80);
  hogs(one, 1);
  peer.send(stream(0, 4_000));
  peer.next += 4_000;
  end.pass(1_000);
  const { counters } = end.endpoint;
  for (let i = 0; i < 3; i++) {
    // The small slab takes 96 bytes of the first one.
    peer.send(stream(4_000, 1_460));
    const acks = end.take().filter(({ to }) => to === '10.0.0.2');
    expect(acks.map(({ acknowledgement }) => acknowledgement)).toEqual([peer.next + 96]);
    expect(counters.dropNoMemory).toBe(i + 1);
    end.pass(1_000);
  }
});
