/** Two ends whose numbers do not fit do not answer each other's answers as fast as they can. */
import { expect, test } from 'vitest';
import { segmentOf } from '../oracle/tcp/segment.ts';
import { packetOf } from '../oracle/tcp/wire.ts';
import { framed } from '../support/vnet.ts';
import { A4, B4, EndpointPair, TestOwner } from './endpoint-pair.ts';

test('an old SYN between an end in TIME-WAIT and a listener makes no storm of ACKs', () => {
  const pair = new EndpointPair();
  const [client, server] = [new TestOwner(), new TestOwner()];
  pair.b.listen(undefined, 80, server, 1);
  client.connection = pair.a.connect(A4, 0, B4, 80, client);
  client.send(Buffer.alloc(10), true);
  pair.settle();
  pair.run(() => pair.a.sizes.timeWait === 0 && server.events !== 0, 10);
  server.send(Buffer.alloc(10), true);
  pair.run(() => pair.a.sizes.timeWait === 1 && pair.b.sizes.connections === 0, 1_000);
  expect(pair.a.sizes.timeWait).toBe(1);

  let frames = 0;
  pair.path = () => {
    frames++;
    return [1];
  };
  const ports = { sourcePort: client.connection.flow.localPort, destinationPort: 80 };
  const ends = { source: '10.0.0.1', destination: '10.0.0.2' };
  const syn = framed(packetOf(ends, ports, segmentOf({ SEQ: 12_345, CTL: ['SYN'], WND: 1000 })));
  pair.b.advance();
  pair.b.receive(syn, 0, syn.length);
  expect(pair.b.sizes.halfOpen).toBe(1);
  pair.run(() => false, 1_000);
  expect(frames).toBeLessThan(20);
});
