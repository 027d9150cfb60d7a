/**
 * What the comparison with the oracle needs of a TCP: one connection, whose peer is the test.
 * @module
 */
import type { Segment } from './segment.ts';
import type { State } from './tcb.ts';

export interface Implementation {
  /** An active OPEN sends a SYN; a passive one waits for the SYN of the peer, any number of times. */
  open(how: 'active' | 'passive'): void;
  /** Returns how many octets it took. */
  send(octets: readonly number[]): number;
  /** Returns at most `count` octets that are there. */
  receive(count: number): readonly number[];
  close(): void;
  /** A CLOSE after which nothing is received any more. */
  release(): void;
  abort(): void;
  arrives(segment: Segment): void;
  /** Takes away what it sends, oldest first. */
  sent(): readonly Segment[];
  /** Lets time pass; what is sent meanwhile waits for `sent`. */
  pass(ms: number): void;
  view(): View;
}

/** What can be seen of the connection from outside. */
export interface View {
  /** Undefined: it does not tell. Of a passive OPEN, as long as there was no SYN: LISTEN. */
  readonly state: State | undefined;
  readonly RCV_NXT: number | undefined;
  /**
   * What it is willing to receive now: at least what it told the peer, for the window may have grown since, and the shift
   * count rounds off.
   */
  readonly RCV_WND: number | undefined;
  readonly SND_UNA: number | undefined;
  readonly SND_NXT: number | undefined;
  /** The octets that `receive` would return. */
  readonly available: number;
  /** Whether the user was told that the peer will send no more. */
  readonly isReadEnded: boolean;
  /** What ended the connection, as the user was told: `reset`, `refused`. Undefined: nothing, or an orderly close. */
  readonly failure: string | undefined;
  /** The user can use the connection: it is ESTABLISHED, or was. */
  readonly isConnected: boolean;
}
