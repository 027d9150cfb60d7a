/** That the counters of an endpoint count what their names say. */
import { expect, test } from 'vitest';
import { ACK, RST } from '../support/packets.ts';
import { A4, B4, EndpointPair, TestOwner } from './endpoint-pair.ts';
import { RawEnd } from './raw-end.ts';

test('what the device refuses does not count as sent', () => {
  const pair = new EndpointPair({ delayMs: 5 });
  const server = new TestOwner();
  const client = new TestOwner();
  pair.b.listen(undefined, 80, server, 1);
  client.connection = pair.a.connect(A4, 0, B4, 80, client);
  pair.run(() => server.connection !== undefined);
  const before = pair.a.counters.sent;
  let refusals = 20;
  pair.isRefused = () => refusals-- > 0;
  client.send(Buffer.alloc(1_000));
  pair.run(() => client.connection!.unacknowledged === 0, 10_000);
  const { sent, sentBytes, refused, retransmitted, retransmittedBytes } = pair.a.counters;
  expect({ sent: sent - before, sentBytes, refused, retransmitted, retransmittedBytes }).toEqual({
    sent: 1,
    sentBytes: 1_000,
    refused: 20,
    retransmitted: 0,
    retransmittedBytes: 0,
  });
});

test('a repetition that the device refuses does not count as one', () => {
  const pair = new EndpointPair({ delayMs: 5 });
  const server = new TestOwner();
  const client = new TestOwner();
  pair.b.listen(undefined, 80, server, 1);
  client.connection = pair.a.connect(A4, 0, B4, 80, client);
  pair.run(() => server.connection !== undefined);
  const { path } = pair;
  pair.path = () => [];
  client.send(Buffer.alloc(1_000));
  pair.settle();
  pair.path = path;
  let refusals = 3;
  pair.isRefused = () => refusals-- > 0;
  pair.run(() => client.connection!.unacknowledged === 0, 10_000);
  const { refused, retransmitted, retransmittedBytes } = pair.a.counters;
  expect([refused, retransmitted, retransmittedBytes]).toEqual([3, 1, 1_000]);
});

test('only what fails behind the handshake, and not by the program, counts as failed', () => {
  const end = new RawEnd();
  end.endpoint.connect(A4, 4_000, B4, 80, new TestOwner());
  const syn = end.take()[0]!;
  const acknowledgment = syn.sequence + 1;
  end.receive('10.0.0.2', 80, 4_000, { sequence: 0, acknowledgment, flags: RST | ACK });
  const owner = new TestOwner();
  end.endpoint.listen(undefined, 80, owner, 10);
  end.peer('10.0.0.2', 2_000, 80);
  owner.connection!.abort();
  end.take();
  expect(end.endpoint.counters.failed).toBe(0);
  end.peer('10.0.0.2', 2_001, 80).send(undefined, 0, { flags: RST });
  expect(end.endpoint.counters.failed).toBe(1);
});

test('a challenge for which there is no place is a dropped answer', () => {
  const end = new RawEnd({ resetsPerSecond: 2_000 });
  end.endpoint.listen(undefined, 80, new TestOwner(), 10);
  const peer = end.peer('10.0.0.2', 2_000, 80);
  for (let i = 0; i < 1_024; i++) {
    end.receive('10.0.0.3', 1_000 + i, 81, { sequence: 1, acknowledgment: 2, flags: ACK });
  }
  peer.send(undefined, 5, { flags: RST });
  const { challengeAcks, dropAnswers } = end.endpoint.counters;
  expect([challengeAcks, dropAnswers]).toEqual([0, 1]);
});
