/**
 * Segments that an endpoint sends beside those of its connections: resets, SYN-ACKs, challenges.
 */
import { expect, test } from 'vitest';
import { TcpState } from '../../src/tcp/index.ts';
import { ACK, RST, SYN } from '../support/packets.ts';
import { A4, B4, TestOwner } from './endpoint-pair.ts';
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
