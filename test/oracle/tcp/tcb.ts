/**
 * The Transmission Control Block (RFC 9293 section 3.3.1) and what an implementation may choose.
 * @module
 */
import type { Segment } from './segment.ts';

export type State =
  | 'CLOSED'
  | 'LISTEN'
  | 'SYN-SENT'
  | 'SYN-RECEIVED'
  | 'ESTABLISHED'
  | 'FIN-WAIT-1'
  | 'FIN-WAIT-2'
  | 'CLOSE-WAIT'
  | 'CLOSING'
  | 'LAST-ACK'
  | 'TIME-WAIT';

/** "in one of the synchronized states", section 3.5. */
export const SYNCHRONIZED: readonly State[] = [
  'ESTABLISHED',
  'FIN-WAIT-1',
  'FIN-WAIT-2',
  'CLOSE-WAIT',
  'CLOSING',
  'LAST-ACK',
  'TIME-WAIT',
];

/** Where the RFC leaves a choice, or says SHOULD. */
export interface Choices {
  /** Selects an ISS (section 3.4.1). */
  readonly selectIss: () => number;
  /** RCV.BUFF, bytes (section 3.8.6.2.2). */
  readonly receiveBuffer: number;
  /** The largest text of a segment that is sent, bytes. */
  readonly mss: number;
  /**
   * Whether SENDs are segmentized at once, as far as the window allows. False: what is sent is decided by somebody
   * else, who tells it by `follow.ts`.
   */
  readonly segmentizes: boolean;
  /** "For stacks implementing the protection described in RFC 5961": the reset, SYN and ACK checks. */
  readonly isRfc5961: boolean;
  /** Errata ID 4772: whether a challenge ACK may be sent now. */
  readonly mayChallenge: () => boolean;
  /** RFC 7323 section 3: whether timestamps are offered and accepted. */
  readonly usesTimestamps: boolean;
  /** RFC 7323 section 3.2: "If a non-<RST> segment is received without a TSopt, a TCP SHOULD silently drop the segment." */
  readonly dropsWithoutTimestamps: boolean;
  /** Whether R3 of RFC 7323 section 5.3 waits until the fifth check has accepted the ACK field. */
  readonly recordsBehindAckCheck: boolean;
  /**
   * `table`: the acceptability test is that of Table 6. `expanded`: Appendix A.2 tells that stacks accept more sequence
   * numbers, lest ACK fields are not processed; see `isExpandedAcceptable`.
   */
  readonly sequenceTest: 'table' | 'expanded';
  /** What an ACK in SYN-RECEIVED gets that acknowledges what was not sent: see `synReceivedAckEnds`. */
  readonly badAckInSynReceived: 'reset' | 'challenge';
  /** What a SYN in the window gets in a SYN-RECEIVED that came from LISTEN: see `fourthSynEnds`. */
  readonly synInSynReceived: 'return to LISTEN' | 'challenge';
  /**
   * Which segments update the send window. `WL`: those of the fifth check. `highest ACK`: also those that acknowledge
   * something new; section 3.8.6: "A refinement to avoid this problem is to act on the window information from segments
   * that carry the highest acknowledgment number".
   */
  readonly windowUpdates: 'WL' | 'highest ACK';
  /** Whether the window of the SYN that LISTEN received counts for MAX.SND.WND. */
  readonly countsWindowOfSyn: boolean;
  /** Whether TS.Recent still changes in TIME-WAIT. */
  readonly recordsInTimeWait: boolean;
  /** Whether ABORT in CLOSING and LAST-ACK is silent (section 3.10.5), or sends the RST of the other states. */
  readonly abortWhileClosing: 'silence' | 'reset';
  /** What a RST gets that begins in front of RCV.NXT, but whose text reaches into the window. */
  readonly resetInFront: 'silence' | 'challenge';
  /** What a RST that is in the window, but not exact, gets in TIME-WAIT. */
  readonly resetInTimeWait: 'challenge' | 'silence';
  /** Whether a FIN directly behind the window is taken: it needs no place in a buffer. */
  readonly takesFinBehindWindow: boolean;
  /**
   * The sequence number of ACKs and RSTs without text: SND.NXT, or the right edge of the send window if the peer has moved
   * that back in front of SND.NXT, because the peer finds nothing behind it acceptable.
   */
  readonly emptySegments: 'SND.NXT' | 'in the window';
  /** Whether CLOSE in SYN-SENT deletes the TCB (section 3.10.4), or waits for ESTABLISHED as in SYN-RECEIVED. */
  readonly closeInSynSent: 'delete' | 'queue';
  /** RFC 7323 section 2: the shift count that is offered; undefined: none. */
  readonly windowScale: number | undefined;
  /** Whether text and FIN of a segment with SYN are kept; otherwise their sender sends them again. */
  readonly keepsTextOfSyn: boolean;
  /** The clock of RFC 7323 section 5.4; and what measures the 24 days of section 5.5. In milliseconds. */
  readonly now: () => number;
}

export const DEFAULT_CHOICES: Choices = {
  selectIss: () => 0,
  receiveBuffer: 65_535,
  mss: 536,
  segmentizes: true,
  isRfc5961: true,
  mayChallenge: () => true,
  usesTimestamps: false,
  dropsWithoutTimestamps: true,
  recordsBehindAckCheck: false,
  sequenceTest: 'table',
  badAckInSynReceived: 'reset',
  synInSynReceived: 'return to LISTEN',
  windowUpdates: 'WL',
  countsWindowOfSyn: true,
  recordsInTimeWait: true,
  abortWhileClosing: 'silence',
  resetInFront: 'silence',
  resetInTimeWait: 'challenge',
  takesFinBehindWindow: false,
  emptySegments: 'SND.NXT',
  closeInSynSent: 'delete',
  windowScale: undefined,
  keepsTextOfSyn: true,
  now: () => 0,
};

/** Why a segment is sent: what the RFC demands it for, and how firmly. */
export interface Emission {
  readonly segment: Segment;
  readonly why: Why;
}

export type Why =
  /** SYN or SYN,ACK. */
  | 'synchronize'
  /** Text or FIN. */
  | 'data'
  /** RST in answer to a segment. */
  | 'reset'
  /** RST because of the ABORT call, or of a CLOSE that loses data. */
  | 'abort'
  /** An ACK of what was received, or of the SYN,ACK: it may be delayed, or piggybacked. */
  | 'acknowledge'
  /** An ACK at once, because a segment left a gap. */
  | 'out of order'
  /** An ACK at once, in answer to a segment that is not acceptable. */
  | 'not acceptable'
  /** An ACK at once; it may be throttled. */
  | 'challenge'
  /** An ACK that no sentence demands. */
  | 'may';

export interface Tcb {
  readonly choices: Choices;
  state: State;
  /** "MUST keep track of whether a connection has reached SYN-RECEIVED state as the result of a passive OPEN" (MUST-11). */
  isPassive: boolean;
  ISS: number;
  IRS: number;
  readonly SND: {
    UNA: number;
    NXT: number;
    /** Scaled: in bytes. */
    WND: number;
    WL1: number;
    WL2: number;
    /** "the largest window that the local sender has ever received from its peer (subject to window scaling)". */
    MAX_WND: number;
    /** Snd.Wind.Shift of RFC 7323 section 2.3. */
    shift: number;
    /** SEG.SEQ+1 of our FIN, once it was sent. */
    finEnd: number | undefined;
  };
  readonly RCV: {
    NXT: number;
    WND: number;
    UP: number;
    /** Rcv.Wind.Shift of RFC 7323 section 2.3. */
    shift: number;
    /** Whether the peer's FIN has been processed. */
    isFinished: boolean;
  };
  /** Snd.WS.OK of RFC 7323: the peer's SYN had a Window Scale option. */
  hasWindowScale: boolean;
  readonly TS: {
    /** Snd.TS.OK of RFC 7323: the peer's SYN had the option, and so had ours. */
    isUsed: boolean;
    Recent: number;
    /** When TS.Recent was last changed, ms. */
    recentAt: number;
    /** Last.ACK.sent. */
    lastAckSent: number;
  };
  /** Octets of SENDs that are not segmentized yet. */
  sendQueue: number[];
  /** CLOSE waits until all preceding SENDs have been segmentized. */
  isCloseQueued: boolean;
  /** A CLOSE after which the user cannot receive (MAY-1). */
  isHalfDuplexClosed: boolean;
  retransmissionQueue: Segment[];
  /** Octets received in order that the user did not take yet. */
  receiveQueue: number[];
  /** "Segments with higher beginning sequence numbers SHOULD be held for later processing" (SHLD-31). */
  held: Segment[];
  /** What was sent, oldest first; the caller takes it away. */
  readonly emissions: Emission[];
  /** What the user was told, oldest first. */
  readonly signals: string[];
  /** How often the time-wait timer was started. */
  timeWaitStarts: number;
}

/** "CLOSED STATE (i.e., TCB does not exist)": it stands for a TCB that does not exist. */
export function closedTcb(choices: Partial<Choices> = {}): Tcb {
  return {
    choices: { ...DEFAULT_CHOICES, ...choices },
    state: 'CLOSED',
    isPassive: false,
    ISS: 0,
    IRS: 0,
    SND: { UNA: 0, NXT: 0, WND: 0, WL1: 0, WL2: 0, MAX_WND: 0, shift: 0, finEnd: undefined },
    RCV: { NXT: 0, WND: 0, UP: 0, shift: 0, isFinished: false },
    hasWindowScale: false,
    TS: { isUsed: false, Recent: 0, recentAt: 0, lastAckSent: 0 },
    sendQueue: [],
    isCloseQueued: false,
    isHalfDuplexClosed: false,
    retransmissionQueue: [],
    receiveQueue: [],
    held: [],
    emissions: [],
    signals: [],
    timeWaitStarts: 0,
  };
}

/** A copy that shares nothing that changes with the other one, with other choices. */
export function copyOf(tcb: Tcb, choices: Partial<Choices> = {}): Tcb {
  return {
    ...tcb,
    choices: { ...tcb.choices, ...choices },
    SND: { ...tcb.SND },
    RCV: { ...tcb.RCV },
    TS: { ...tcb.TS },
    sendQueue: [...tcb.sendQueue],
    retransmissionQueue: [...tcb.retransmissionQueue],
    receiveQueue: [...tcb.receiveQueue],
    held: [...tcb.held],
    emissions: [...tcb.emissions],
    signals: [...tcb.signals],
  };
}

/** "All segment queues should be flushed." What the user has not taken yet stays readable. */
export function flushQueues(tcb: Tcb): void {
  tcb.sendQueue = [];
  tcb.retransmissionQueue = [];
  tcb.held = [];
  tcb.isCloseQueued = false;
}

/** "enter the CLOSED state, delete the TCB". */
export function deleteTcb(tcb: Tcb): void {
  flushQueues(tcb);
  tcb.state = 'CLOSED';
}

/** "signal the user ...". */
export function signal(tcb: Tcb, text: string): void {
  tcb.signals.push(text);
}
