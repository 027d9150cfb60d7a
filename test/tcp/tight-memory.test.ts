/**
 * What an endpoint does while its memory is tight or used up: everybody gets on with a little, and only who holds much
 * for nothing is reset.
 */
import { describe, expect, test } from 'vitest';
import type { TcpConnection } from '../../src/tcp/index.ts';
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
  return Array.from({ length: count }, (_, i) => {
    const hog = end.peer(`10.0.1.${i}`, 2_000, 80);
    hog.send(stream(0, 60_000));
    hog.next += 60_000;
    end.take();
    return hog;
  });
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
