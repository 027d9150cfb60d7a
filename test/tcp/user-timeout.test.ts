/**
 * The user timeout (RFC 9293 section 3.9.1.1, RFC 5482): it ends what cannot go on, and nothing else.
 */
import { expect, test } from 'vitest';
import { TcpState } from '../../src/tcp/index.ts';
import { A4, B4, connected, TestOwner } from './endpoint-pair.ts';

// RFC 9293 section 3.8.6.1: while the peer answers probes of its window, the connection MUST stay open.
test('a peer that answers the probes of its closed window for two hours keeps its connection', () => {
  const { pair, server, client } = connected();
  server.isReading = false;
  client.send(Buffer.alloc(500_000));
  pair.run(() => false, 7_200_000);
  expect([client.connection!.state, client.connection!.failure]).toEqual([
    TcpState.Established,
    undefined,
  ]);
  server.isReading = true;
  server.read();
  pair.run(() => server.bytes.length === 500_000, 300_000);
  expect(server.bytes).toHaveLength(500_000);
});

test('a device that refuses every packet does not keep a connection, nor one that its application has left', () => {
  const { pair, client } = connected();
  const left = new TestOwner();
  left.connection = pair.a.connect(A4, 0, B4, 80, left);
  pair.run(() => left.connection!.state === TcpState.Established, 1_000);
  client.connection!.setUserTimeout(5_000);
  pair.isRefused = () => true;
  client.send(Buffer.alloc(100));
  left.send(Buffer.alloc(100));
  left.connection.release();
  pair.run(() => false, 4_900);
  expect(client.isClosed).toBe(false);
  pair.run(() => client.isClosed, 200);
  expect(client.connection!.failure).toBe('timed-out');
  pair.run(() => false, 1_000_000);
  expect(pair.a.sizes.connections).toBe(0);
});
