/**
 * Segments that an endpoint sends beside those of its connections: resets, SYN-ACKs, challenges.
 */
import { expect, test } from 'vitest';
import { TcpState } from '../../src/tcp/index.ts';
import { ACK, RST, SYN } from '../support/packets.ts';
import { A4, B4, EndpointPair, TestOwner } from './endpoint-pair.ts';
import { RawEnd } from './raw-end.ts';

test.each(['SYN-SENT', 'SYN-RECEIVED'])(
  'bad ACKs in %s cause no more resets than others',
  (state) => {
    const end = new RawEnd({ resetsPerSecond: 10 });
    const connection = end.endpoint.connect(A4, 4_000, B4, 80, new TestOwner());
    const syn = end.take()[0]!;
    if (state === 'SYN-RECEIVED') end.receive('10.0.0.2', 80, 4_000, { sequence: 5, flags: SYN });
    end.take();
    for (let i = 0; i < 100; i++) {
      const acknowledgment = syn.sequence + 2 + i;
      end.receive('10.0.0.2', 80, 4_000, { sequence: 6, acknowledgment, flags: ACK });
    }
    expect(connection.state).toBe(state === 'SYN-SENT' ? TcpState.SynSent : TcpState.SynReceived);
    expect(end.take().map(({ flags }) => flags)).toEqual(new Array(10).fill(RST));
    expect(end.endpoint.counters.dropAnswers).toBe(90);
  }
);

test('a SYN-ACK that the device refuses is sent soon', () => {
  const pair = new EndpointPair({ delayMs: 5 });
  const server = new TestOwner();
  pair.b.listen(undefined, 80, server, 1);
  pair.a.connect(A4, 0, B4, 80, new TestOwner());
  let packets = 0;
  pair.isRefused = () => packets++ === 1;
  pair.run(() => server.connection !== undefined, 100);
  expect(server.connection).not.toBe(undefined);
  expect(pair.b.counters.refused).toBe(1);
});

test('a reset that the device refuses reaches the peer later', () => {
  const pair = new EndpointPair({ delayMs: 5 });
  const server = new TestOwner();
  pair.b.listen(undefined, 80, server, 1);
  const connection = pair.a.connect(A4, 0, B4, 80, new TestOwner());
  pair.run(() => server.connection !== undefined, 1_000);
  let refusals = 3;
  pair.isRefused = () => refusals-- > 0;
  connection.abort();
  pair.run(() => server.isClosed, 100);
  expect(server.connection!.failure).toBe('reset');
  expect(pair.a.counters.refused).toBe(3);
});

test('refused answers keep their order, and hold nobody else back', () => {
  const end = new RawEnd();
  const buffer = Buffer.alloc(70_000);
  for (const port of [1, 2, 3]) {
    end.receive('10.0.0.2', port, 81, { sequence: 1, acknowledgment: 2, flags: ACK });
  }
  expect(end.endpoint.read(buffer, 0)).toBeGreaterThan(0);
  end.endpoint.refused();
  end.endpoint.connect(A4, 4_000, B4, 80, new TestOwner());
  expect(end.take().map(({ flags }) => flags)).toEqual([SYN]);
  expect(end.endpoint.deadline).toBe(end.now + 10);
  end.now += 10;
  end.endpoint.expire();
  expect(end.take().map(({ destinationPort }) => destinationPort)).toEqual([1, 2, 3]);
  expect(end.endpoint.counters.sent).toBe(4);
});

test('an ACK that went with refused data is sent soon by itself', () => {
  const pair = new EndpointPair({ delayMs: 300 });
  const server = new TestOwner();
  const client = new TestOwner();
  pair.b.listen(undefined, 80, server, 1);
  client.connection = pair.a.connect(A4, 0, B4, 80, client);
  pair.run(() => server.connection !== undefined, 5_000);
  pair.run(() => false, 2_000);
  // Something is in flight, so that nothing but an ACK would try again.
  client.send(Buffer.alloc(2_000));
  pair.settle();
  pair.now += 100;
  server.send(Buffer.alloc(100));
  pair.run(() => client.bytes.length === 100, 1_000);
  const at = pair.now;
  const acks: number[] = [];
  pair.path = (_frame, from) => {
    if (from === 'a') acks.push(pair.now - at);
    return [300];
  };
  pair.isRefused = () => {
    pair.isRefused = () => false;
    return true;
  };
  client.send(Buffer.alloc(5_000));
  pair.run(() => acks.length > 0, 1_000);
  expect(acks).toEqual([10]);
});
