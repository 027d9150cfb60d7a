/**
 * Outages of the link: they count against nobody, and the connections go on behind them.
 */
import { expect, test } from 'vitest';
import { TcpState } from '../../src/tcp/index.ts';
import { A4, B4, connected, EndpointPair, TestOwner } from './endpoint-pair.ts';

/** The link is down for so long. */
function outage(pair: EndpointPair, ms: number): void {
  const { path } = pair;
  pair.path = () => [];
  for (const endpoint of [pair.a, pair.b]) endpoint.linkChanged(false);
  pair.run(() => false, ms);
  pair.now += ms;
  pair.path = path;
  for (const endpoint of [pair.a, pair.b]) endpoint.linkChanged(true);
}

test('probes of an idle peer that were lost before an outage do not end the connection behind it', () => {
  const { pair, client } = connected();
  client.connection!.setKeepAlive(1_000);
  const { path } = pair;
  // The tunnel is dead, and nobody knows it yet.
  pair.path = () => [];
  pair.run(() => false, 10_500);
  pair.path = path;
  outage(pair, 60_000);
  pair.run(() => false, 30_000);
  expect(client.connection!.failure).toBe(undefined);
  expect(client.connection!.state).toBe(TcpState.Established);
});

test('a closed window is probed behind an outage that was nearly as long as the user timeout', () => {
  const { pair, server, client } = connected();
  client.connection!.setUserTimeout(31_000);
  server.isReading = false;
  client.send(Buffer.alloc(300_000));
  pair.run(() => false, 8_000);
  outage(pair, 30_000);
  pair.run(() => false, 30_000);
  expect(client.connection!.failure).toBe(undefined);
  server.isReading = true;
  server.read();
  pair.run(() => server.bytes.length === 300_000, 30_000);
  expect(server.bytes).toHaveLength(300_000);
});

test('many short outages do not use up the attempts of a connect', () => {
  const pair = new EndpointPair({ delayMs: 5 });
  const { path } = pair;
  const client = new TestOwner();
  pair.path = () => [];
  pair.b.listen(undefined, 80, new TestOwner(), 1);
  client.connection = pair.a.connect(A4, 0, B4, 80, client);
  pair.settle();
  for (let i = 0; i < 20; i++) {
    pair.run(() => false, 150);
    outage(pair, 100);
    pair.path = () => [];
  }
  expect(client.connection.state).toBe(TcpState.SynSent);
  // The back-off has not begun either.
  pair.path = path;
  pair.run(() => client.connection!.state === TcpState.Established, 1_200);
  expect(client.connection.state).toBe(TcpState.Established);
});

test('a connect to nobody ends after its attempts, also if there was an outage', () => {
  const pair = new EndpointPair({ delayMs: 5 });
  const client = new TestOwner();
  client.connection = pair.a.connect(A4, 0, B4, 80, client);
  pair.settle();
  outage(pair, 1_000);
  pair.path = () => [];
  pair.run(() => client.isClosed, 200_000);
  expect(client.connection.failure).toBe('timed-out');
});
