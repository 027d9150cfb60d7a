/**
 * What waits for an acknowledgement, or to be sent, without progress: the user timeout, and the bounds of connections
 * without an application, also while the link is down.
 */
import { beforeEach, describe, expect, test } from 'vitest';
import { type TcpConnection, TcpState } from '../../src/tcp/index.ts';
import { A4, B4, EndpointPair, TestOwner } from './endpoint-pair.ts';

const USER_TIMEOUT_MS = 30_000;

let pair: EndpointPair;
let client: TestOwner;
let server: TestOwner;
let connection: TcpConnection;

beforeEach(() => {
  pair = new EndpointPair();
  client = new TestOwner();
  server = new TestOwner();
  pair.b.listen(undefined, 80, server, 10);
  connection = pair.a.connect(A4, 0, B4, 80, client);
  connection.setUserTimeout(USER_TIMEOUT_MS);
  pair.run();
  expect(connection.state).toBe(TcpState.Established);
  // The endpoint has not looked at its clock for long.
  pair.now += 3_600_000;
});

const bytes = Buffer.alloc(1_000);

/** Returns after how many ms the connection ends, at most a day. */
function endOf(): number {
  const since = pair.now;
  pair.run(() => connection.state === TcpState.Closed, 86_400_000);
  expect(connection.state).toBe(TcpState.Closed);
  return pair.now - since;
}

/** The link of the client; while it is down, its device does not ask for packets. */
function setLink(isUp: boolean): void {
  pair.isPaused = (name) => name === 'a' && !isUp;
  pair.a.linkChanged(isUp);
}

/** Both directions lose everything from now on. */
const lose = (): void => {
  pair.path = () => [];
};

describe('while the link is down, the user timeout ends a connection', () => {
  test('that has data in flight', () => {
    lose();
    client.send(bytes);
    pair.settle();
    setLink(false);
    expect(endOf()).toBe(USER_TIMEOUT_MS);
    expect(connection.failure).toBe('timed-out');
  });

  test.each([
    ['data', () => client.send(bytes)],
    ['an end', () => connection.shutdown()],
    ['data and an end', () => client.send(bytes, true)],
  ])('that has %s to send from then on', (_, act) => {
    setLink(false);
    pair.run(() => false, 60_000);
    pair.now += 600_000;
    act();
    expect(endOf()).toBe(USER_TIMEOUT_MS);
    expect(connection.failure).toBe('timed-out');
    expect(pair.a.memory.used + pair.a.memory.usedSmall).toBe(0);
  });

  test('that waits for a window', () => {
    server.isReading = false;
    client.send(Buffer.alloc(200_000));
    pair.run(() => false, 60_000);
    expect(connection.state).toBe(TcpState.Established);
    setLink(false);
    expect(endOf()).toBe(USER_TIMEOUT_MS);
  });

  test('that is idle never', () => {
    setLink(false);
    pair.run(() => false, 86_400_000);
    expect([connection.state, pair.a.deadline]).toEqual([
      TcpState.Established,
      Number.POSITIVE_INFINITY,
    ]);
  });
});

test('a peer that closes its window when it acknowledges the last byte is no stall', () => {
  server.isReading = false;
  client.send(Buffer.alloc(200_000));
  // What is left is refused when it is probed, and the window stays as it is.
  pair.run(() => false, 10_000);
  const taken = server.connection!.available;
  expect(taken).toBeLessThan(200_000);
  const second = new TestOwner();
  const exact = pair.a.connect(A4, 0, B4, 80, second);
  exact.setUserTimeout(USER_TIMEOUT_MS);
  second.send(Buffer.alloc(taken));
  pair.run(() => false, 86_400_000);
  expect([exact.state, exact.unacknowledged]).toEqual([TcpState.Established, 0]);
});

describe('when the link is up again', () => {
  test('the user timeout of what had to wait goes on', () => {
    setLink(false);
    client.send(bytes);
    pair.now += USER_TIMEOUT_MS - 5_000;
    lose();
    setLink(true);
    expect(endOf()).toBe(5_000);
  });

  test('what is acknowledged in time ends nothing', () => {
    setLink(false);
    client.send(bytes);
    pair.now += USER_TIMEOUT_MS - 5_000;
    setLink(true);
    pair.run(() => false, 86_400_000);
    expect(server.bytes.length).toBe(bytes.length);
    expect([connection.state, pair.a.deadline]).toEqual([
      TcpState.Established,
      Number.POSITIVE_INFINITY,
    ]);
  });

  test('a closed window whose probes are answered ends nothing', () => {
    connection.setUserTimeout(86_400_000);
    server.isReading = false;
    client.send(Buffer.alloc(200_000));
    pair.run(() => false, 60_000);
    setLink(false);
    pair.now += 43_200_000;
    setLink(true);
    pair.run(() => false, 64_800_000);
    expect(connection.state).toBe(TcpState.Established);
  });
});

describe('a connection without an application ends while the link is down', () => {
  test.each([
    ['that has an end to send', () => {}],
    ['that has data to send', () => client.send(bytes)],
    ['that has ended before', () => connection.shutdown()],
  ])('%s', (_, act) => {
    connection.setUserTimeout(86_400_000);
    setLink(false);
    act();
    pair.now += 1_000;
    connection.release();
    // As long as eight retransmissions take.
    expect(endOf()).toBe(102_200);
    expect(pair.a.sizes).toMatchObject({ connections: 0, timers: 0 });
    expect(pair.a.memory.used + pair.a.memory.usedSmall).toBe(0);
  });

  test('and not by that bound if the link is up in time', () => {
    setLink(false);
    client.send(bytes);
    connection.release();
    pair.now += 20_000;
    setLink(true);
    pair.run(() => server.bytes.length === bytes.length, 1_000);
    expect(server.bytes.length).toBe(bytes.length);
    pair.run(() => false, 50_000);
    expect(connection.state).toBe(TcpState.FinWait2);
  });
});
