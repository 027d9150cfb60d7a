/** The figures of RFC 9293 sections 3.5 and 3.6, line by line; the numbers of the tests' comments are those of the lines. */
import { describe, expect, test } from 'vitest';
import { SEGMENT_ARRIVES } from './arrives.ts';
import { CLOSE, OPEN, SEND } from './calls.ts';
import { establishedPair, onlySentBy, sentBy } from './peers.ts';
import { notationOf, type Segment, segmentOf } from './segment.ts';
import { closedTcb, type Tcb } from './tcb.ts';
import { TIME_WAIT_TIMEOUT } from './timeouts.ts';

function opened(iss: number, how: 'active' | 'passive', ...later: readonly number[]): Tcb {
  const numbers = [iss, ...later];
  const tcb = closedTcb({ selectIss: () => numbers.shift()! });
  OPEN(tcb, how);
  return tcb;
}

/** Checks what was sent, and returns it. */
function sends(tcb: Tcb, notation: string): Segment {
  const segment = onlySentBy(tcb);
  expect(notationOf(segment)).toBe(notation);
  return segment;
}

function arrives(tcb: Tcb, segment: Segment, state: string): void {
  SEGMENT_ARRIVES(tcb, segment);
  expect(tcb.state).toBe(state);
}

describe('establishing a connection (section 3.5)', () => {
  test('figure 6: the three-way handshake', () => {
    const b = opened(300, 'passive');
    expect(b.state).toBe('LISTEN'); // 1
    const a = opened(100, 'active');
    expect(a.state).toBe('SYN-SENT'); // 2
    arrives(b, sends(a, '<SEQ=100><CTL=SYN>'), 'SYN-RECEIVED');
    arrives(a, sends(b, '<SEQ=300><ACK=101><CTL=SYN,ACK>'), 'ESTABLISHED'); // 3
    arrives(b, sends(a, '<SEQ=101><ACK=301><CTL=ACK>'), 'ESTABLISHED'); // 4
    SEND(a, [1, 2, 3]);
    arrives(b, sends(a, '<SEQ=101><ACK=301><DATA=3><CTL=ACK>'), 'ESTABLISHED'); // 5
    expect(b.receiveQueue).toEqual([1, 2, 3]);
  });

  test('figure 7: simultaneous initiation', () => {
    const a = opened(100, 'active'); // 2
    const delayed = sends(a, '<SEQ=100><CTL=SYN>');
    const b = opened(300, 'active'); // 3
    arrives(a, sends(b, '<SEQ=300><CTL=SYN>'), 'SYN-RECEIVED');
    const delayedAgain = sends(a, '<SEQ=100><ACK=301><CTL=SYN,ACK>'); // 5
    arrives(b, delayed, 'SYN-RECEIVED'); // 4
    arrives(a, sends(b, '<SEQ=300><ACK=101><CTL=SYN,ACK>'), 'ESTABLISHED'); // 6
    arrives(b, delayedAgain, 'ESTABLISHED'); // 7
    SEND(a, [1]);
    SEND(b, [2]);
    for (const segment of sentBy(a)) SEGMENT_ARRIVES(b, segment);
    for (const segment of sentBy(b)) SEGMENT_ARRIVES(a, segment);
    expect([a.receiveQueue, b.receiveQueue]).toEqual([[2], [1]]);
  });

  test('figure 8: recovery from an old duplicate SYN', () => {
    const b = opened(300, 'passive', 400);
    const a = opened(100, 'active'); // 2
    const delayed = sends(a, '<SEQ=100><CTL=SYN>');
    arrives(b, segmentOf({ SEQ: 90, CTL: ['SYN'] }), 'SYN-RECEIVED'); // 3
    arrives(a, sends(b, '<SEQ=300><ACK=91><CTL=SYN,ACK>'), 'SYN-SENT'); // 4
    arrives(b, sends(a, '<SEQ=91><CTL=RST>'), 'LISTEN'); // 5
    expect(b.signals).toEqual([]);
    arrives(b, delayed, 'SYN-RECEIVED'); // 6
    arrives(a, sends(b, '<SEQ=400><ACK=101><CTL=SYN,ACK>'), 'ESTABLISHED'); // 7
    arrives(b, sends(a, '<SEQ=101><ACK=401><CTL=ACK>'), 'ESTABLISHED'); // 8
  });
});

describe('half-open connections (section 3.5.1)', () => {
  test('figure 9: the end that lost its memory opens again', () => {
    const [, b] = establishedPair(100, 300);
    const a = opened(400, 'active'); // 3
    const syn = sends(a, '<SEQ=400><CTL=SYN>');
    arrives(b, syn, 'ESTABLISHED');
    arrives(a, sends(b, '<SEQ=300><ACK=100><CTL=ACK>'), 'SYN-SENT'); // 4
    arrives(b, sends(a, '<SEQ=100><CTL=RST>'), 'CLOSED'); // 5, 6
    expect(b.signals).toEqual(['connection reset']);
    arrives(b, syn, 'CLOSED'); // 7
    expect(a.state).toBe('SYN-SENT');
  });

  test('figure 10: data for a connection that does not exist is reset', () => {
    const [, b] = establishedPair(100, 300);
    const a = closedTcb(); // 1
    SEND(b, new Array(10).fill(7)); // 2
    arrives(a, sends(b, '<SEQ=300><ACK=100><DATA=10><CTL=ACK>'), 'CLOSED');
    arrives(b, sends(a, '<SEQ=100><CTL=RST>'), 'CLOSED'); // 3
    expect(b.signals).toEqual(['connection reset']);
  });

  test('figure 11: an old duplicate SYN between two passive ends is reset', () => {
    const [a, b] = [opened(1, 'passive'), opened(2000, 'passive')]; // 1
    arrives(b, segmentOf({ SEQ: 777, CTL: ['SYN'] }), 'SYN-RECEIVED'); // 2
    arrives(a, sends(b, '<SEQ=2000><ACK=778><CTL=SYN,ACK>'), 'LISTEN'); // 3
    arrives(b, sends(a, '<SEQ=778><CTL=RST>'), 'LISTEN'); // 4, 5
    expect(b.signals).toEqual([]);
  });
});

describe('closing a connection (section 3.6)', () => {
  test('figure 12: the normal close sequence', () => {
    const [a, b] = establishedPair(100, 300); // 1
    CLOSE(a); // 2
    expect(a.state).toBe('FIN-WAIT-1');
    arrives(b, sends(a, '<SEQ=100><ACK=300><CTL=FIN,ACK>'), 'CLOSE-WAIT');
    expect(b.signals).toEqual(['connection closing']);
    arrives(a, sends(b, '<SEQ=300><ACK=101><CTL=ACK>'), 'FIN-WAIT-2'); // 3
    CLOSE(b); // 4
    expect(b.state).toBe('LAST-ACK');
    arrives(a, sends(b, '<SEQ=300><ACK=101><CTL=FIN,ACK>'), 'TIME-WAIT');
    arrives(b, sends(a, '<SEQ=101><ACK=301><CTL=ACK>'), 'CLOSED'); // 5
    TIME_WAIT_TIMEOUT(a); // 6
    expect(a.state).toBe('CLOSED');
    expect(a.signals).toEqual(['connection closing', 'closed']);
  });

  test('figure 13: the simultaneous close sequence', () => {
    const [a, b] = establishedPair(100, 300); // 1
    CLOSE(a); // 2
    CLOSE(b);
    const fromA = sends(a, '<SEQ=100><ACK=300><CTL=FIN,ACK>');
    arrives(a, sends(b, '<SEQ=300><ACK=100><CTL=FIN,ACK>'), 'CLOSING');
    arrives(b, fromA, 'CLOSING');
    const ackOfA = sends(a, '<SEQ=101><ACK=301><CTL=ACK>'); // 3
    arrives(a, sends(b, '<SEQ=301><ACK=101><CTL=ACK>'), 'TIME-WAIT');
    arrives(b, ackOfA, 'TIME-WAIT'); // 4
    for (const end of [a, b]) TIME_WAIT_TIMEOUT(end);
    expect([a.state, b.state]).toEqual(['CLOSED', 'CLOSED']);
  });
});
