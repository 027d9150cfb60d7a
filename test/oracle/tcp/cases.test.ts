/** Cases of RFC 9293 section 3.10, of RFC 5961, 7323 and 6191, worked out by hand. */
import { describe, expect, test } from 'vitest';
import { SEGMENT_ARRIVES, SYN_ENDS_TIME_WAIT } from './arrives.ts';
import { ABORT, CLOSE, closeHalfDuplex, OPEN, RECEIVE, SEND, STATUS } from './calls.ts';
import { establishedPair, exchange, sentBy } from './peers.ts';
import { notationOf, type Segment, segmentOf } from './segment.ts';
import { type Choices, closedTcb, type Tcb } from './tcb.ts';
import { RETRANSMISSION_TIMEOUT, TIME_WAIT_TIMEOUT, USER_TIMEOUT } from './timeouts.ts';

/** In ESTABLISHED, SND.NXT 100, RCV.NXT 300, RCV.WND 1000. */
function established(choices: Partial<Choices> = {}): Tcb {
  return establishedPair(100, 300, { receiveBuffer: 1000, ...choices })[0];
}

function answers(tcb: Tcb, ...segments: readonly Segment[]): readonly string[] {
  for (const segment of segments) SEGMENT_ARRIVES(tcb, segment);
  return sentBy(tcb).map(notationOf);
}

function ack(fields: Partial<Segment>): Segment {
  return segmentOf({ SEQ: 300, ACK: 100, WND: 1000, CTL: ['ACK'], ...fields });
}

const CHALLENGE = '<SEQ=100><ACK=300><CTL=ACK>';

describe('CLOSED and LISTEN', () => {
  test('a segment without ACK is reset with SEG.SEQ+SEG.LEN, one with ACK at SEG.ACK, a RST not at all', () => {
    const tcb = closedTcb();
    expect(answers(tcb, segmentOf({ SEQ: 7, CTL: ['SYN', 'FIN'], text: [1] }))).toEqual([
      '<SEQ=0><ACK=10><CTL=RST,ACK>',
    ]);
    expect(answers(tcb, ack({ ACK: 55 }))).toEqual(['<SEQ=55><CTL=RST>']);
    expect(answers(tcb, segmentOf({ SEQ: 7, CTL: ['RST'] }))).toEqual([]);
  });

  test('LISTEN resets an ACK, and drops what has neither RST nor ACK nor SYN', () => {
    const tcb = closedTcb();
    OPEN(tcb, 'passive');
    expect(answers(tcb, ack({ ACK: 55 }))).toEqual(['<SEQ=55><CTL=RST>']);
    expect(answers(tcb, segmentOf({ SEQ: 7, CTL: ['FIN'] }))).toEqual([]);
    expect(STATUS(tcb)).toBe('state = LISTEN');
  });
});

describe('the acceptability test (table 6)', () => {
  test.each([
    ['the first octet of the window', { SEQ: 300, text: [1] }, 301],
    ['an old segment with a new last octet', { SEQ: 290, text: new Array(11).fill(1) }, 301],
    ['an old segment', { SEQ: 290, text: new Array(10).fill(1) }, 300],
    ['text behind the window', { SEQ: 1300, text: [1] }, 300],
    ['text across the right edge', { SEQ: 300, text: new Array(1200).fill(1) }, 1300],
  ] as const)('%s', (_, fields, next) => {
    const tcb = established();
    const sent = answers(tcb, ack(fields));
    expect(sent).toEqual([`<SEQ=100><ACK=${next}><CTL=ACK>`]);
    expect(tcb.RCV.NXT).toBe(next);
  });

  test('a window of 0 takes ACKs and RSTs at RCV.NXT, and answers text', () => {
    const tcb = established();
    answers(tcb, ack({ text: new Array(1000).fill(1) }));
    expect(tcb.RCV.WND).toBe(0);
    SEND(tcb, [1, 2]);
    sentBy(tcb);
    expect(answers(tcb, ack({ SEQ: 1300, ACK: 102, text: [9] }))).toEqual([
      '<SEQ=102><ACK=1300><CTL=ACK>',
    ]);
    expect(tcb.SND.UNA).toBe(102);
    expect(RECEIVE(tcb, 5000)).toHaveLength(1000);
    expect(tcb.RCV.WND).toBe(1000);
  });

  test('text that comes out of order is held, and delivered when the gap is filled', () => {
    const tcb = established();
    expect(answers(tcb, ack({ SEQ: 302, text: [3], CTL: ['ACK', 'FIN'] }))).toEqual([CHALLENGE]);
    expect(answers(tcb, ack({ text: [1, 2] }))).toEqual(['<SEQ=100><ACK=304><CTL=ACK>']);
    expect(tcb.state).toBe('CLOSE-WAIT');
    expect(RECEIVE(tcb, 100)).toEqual([1, 2, 3]);
    expect(RECEIVE(tcb, 100)).toBe('error: connection closing');
  });
});

describe('RFC 5961', () => {
  test('a RST resets only at RCV.NXT; elsewhere in the window it is challenged, outside it is dropped', () => {
    const tcb = established();
    expect(answers(tcb, segmentOf({ SEQ: 301, CTL: ['RST'] }))).toEqual([CHALLENGE]);
    expect(answers(tcb, segmentOf({ SEQ: 299, CTL: ['RST'] }))).toEqual([]);
    expect(answers(tcb, segmentOf({ SEQ: 1300, CTL: ['RST'] }))).toEqual([]);
    expect(tcb.state).toBe('ESTABLISHED');
    expect(answers(tcb, segmentOf({ SEQ: 300, CTL: ['RST'] }))).toEqual([]);
    expect(tcb.state).toBe('CLOSED');
    expect(tcb.signals).toEqual(['connection reset']);
  });

  test('a SYN is challenged, wherever it is', () => {
    const tcb = established();
    for (const SEQ of [299, 300, 301, 70_000]) {
      expect(answers(tcb, segmentOf({ SEQ, CTL: ['SYN'] }))).toEqual([CHALLENGE]);
    }
    expect(tcb.state).toBe('ESTABLISHED');
  });

  test('an ACK is possible from SND.UNA-MAX.SND.WND to SND.NXT', () => {
    const tcb = established();
    for (const ACK of [101, 100 - 1001 + 2 ** 32]) {
      expect(answers(tcb, ack({ ACK, text: [1] }))).toEqual([CHALLENGE]);
      expect(tcb.RCV.NXT).toBe(300);
    }
    answers(tcb, ack({ ACK: 100 - 1000 + 2 ** 32, text: [1] }));
    expect(tcb.RCV.NXT).toBe(301);
  });

  test('without it a SYN in the window resets', () => {
    const tcb = established({ isRfc5961: false });
    expect(answers(tcb, ack({ SEQ: 301, CTL: ['SYN', 'ACK'] }))).toEqual(['<SEQ=100><CTL=RST>']);
    expect(tcb.state).toBe('CLOSED');
  });
});

describe('RFC 7323', () => {
  function stamped(TSval: number, fields: Partial<Segment> = {}): Segment {
    return ack({ options: { timestamps: { TSval, TSecr: 0 } }, ...fields });
  }

  function withTimestamps(): Tcb {
    const tcb = established({ usesTimestamps: true });
    answers(tcb, stamped(1000));
    expect(tcb.TS.Recent).toBe(1000);
    return tcb;
  }

  test('R1: an old timestamp makes a segment unacceptable, but not a RST', () => {
    const tcb = withTimestamps();
    expect(answers(tcb, stamped(999, { text: [1] }))).toEqual([CHALLENGE]);
    expect(tcb.RCV.NXT).toBe(300);
    answers(tcb, stamped(999, { CTL: ['RST'] }));
    expect(tcb.state).toBe('CLOSED');
  });

  test('R3: a timestamp is recorded from the segment that begins at or in front of Last.ACK.sent', () => {
    const tcb = withTimestamps();
    answers(tcb, stamped(1001, { SEQ: 301 }));
    expect(tcb.TS.Recent).toBe(1000);
    answers(tcb, stamped(1002));
    expect(tcb.TS.Recent).toBe(1002);
  });

  test('a segment without the option is dropped silently', () => {
    const tcb = withTimestamps();
    expect(answers(tcb, ack({ text: [1] }))).toEqual([]);
    expect(tcb.RCV.NXT).toBe(300);
  });

  test('both shift counts are used if both ends offer one, but not for a SYN', () => {
    const [a, b] = establishedPair(100, 300, { windowScale: 4, receiveBuffer: 500_000 });
    expect([a.SND.WND, b.SND.WND]).toEqual([65_535, 500_000]);
    const [c] = establishedPair(100, 300, { receiveBuffer: 500_000 });
    expect(c.SND.WND).toBe(65_535);
  });
});

describe('RFC 6191', () => {
  function inTimeWait(usesTimestamps: boolean): Tcb {
    const [a, b] = establishedPair(100, 300, { usesTimestamps });
    CLOSE(a);
    exchange(a, b);
    CLOSE(b);
    exchange(a, b);
    exchange(a, b);
    expect([a.state, a.RCV.NXT]).toEqual(['TIME-WAIT', 301]);
    return a;
  }

  test.each([
    [true, 300, 5, true],
    [true, 300, 0, false],
    [true, 301, 0, true],
    [true, 300, undefined, false],
    [true, 301, undefined, true],
    [false, 300, undefined, false],
    [false, 301, undefined, true],
  ] as const)(
    'timestamps %s: a SYN of number %i and timestamp %s',
    (isUsed, SEQ, TSval, honors) => {
      const tcb = inTimeWait(isUsed);
      const options = TSval === undefined ? {} : { timestamps: { TSval, TSecr: 0 } };
      expect(SYN_ENDS_TIME_WAIT(tcb, segmentOf({ SEQ, CTL: ['SYN'], options }))).toBe(honors);
    }
  );

  test('2 MSL later the TCB is gone', () => {
    const tcb = inTimeWait(false);
    TIME_WAIT_TIMEOUT(tcb);
    expect(STATUS(tcb)).toBe('error: connection does not exist');
  });
});

describe('user calls and timeouts', () => {
  test('ABORT sends a RST at SND.NXT, but none in SYN-SENT, CLOSING and LAST-ACK', () => {
    const tcb = established();
    ABORT(tcb);
    expect(sentBy(tcb).map(notationOf)).toEqual(['<SEQ=100><CTL=RST>']);
    const opening = closedTcb();
    OPEN(opening, 'active');
    sentBy(opening);
    ABORT(opening);
    expect(sentBy(opening)).toEqual([]);
    const closing = established();
    CLOSE(closing);
    answers(closing, ack({ CTL: ['FIN', 'ACK'] }));
    expect(closing.state).toBe('CLOSING');
    ABORT(closing);
    expect(sentBy(closing)).toEqual([]);
  });

  test('SEND after CLOSE is an error; CLOSE sends FIN behind all text', () => {
    const tcb = established();
    SEND(tcb, new Array(1200).fill(1));
    CLOSE(tcb);
    expect(SEND(tcb, [1])).toBe('error: connection closing');
    sentBy(tcb);
    expect(answers(tcb, ack({ ACK: 1100 }))).toEqual([
      '<SEQ=1100><ACK=300><DATA=200><CTL=ACK>',
      '<SEQ=1300><ACK=300><CTL=FIN,ACK>',
    ]);
  });

  test('a CLOSE that loses data resets (SHLD-3)', () => {
    const tcb = established();
    answers(tcb, ack({ text: [1] }));
    closeHalfDuplex(tcb);
    expect(sentBy(tcb).map(notationOf)).toEqual(['<SEQ=100><CTL=RST>']);
    const later = established();
    closeHalfDuplex(later);
    sentBy(later);
    expect(answers(later, ack({ text: [1] }))).toEqual(['<SEQ=101><CTL=RST>']);
    expect(later.state).toBe('CLOSED');
  });

  test('a window of 0 is probed with one octet', () => {
    const tcb = established();
    answers(tcb, ack({ WND: 0 }));
    SEND(tcb, [1, 2]);
    expect(sentBy(tcb)).toEqual([]);
    RETRANSMISSION_TIMEOUT(tcb);
    expect(sentBy(tcb).map(notationOf)).toEqual(['<SEQ=100><ACK=300><DATA=1><CTL=ACK>']);
  });

  test('the user timeout ends the connection', () => {
    const tcb = established();
    USER_TIMEOUT(tcb);
    expect(tcb.state).toBe('CLOSED');
    expect(tcb.signals).toEqual(['connection aborted due to user timeout']);
  });
});
