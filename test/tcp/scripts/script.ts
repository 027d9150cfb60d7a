/**
 * The parts of a script, as `parser.ts` reads them and `runner.ts` runs them.
 *
 * Sequence numbers are relative: 0 is the SYN of the side that sent it. Times are in ms.
 * @module
 */
import type { Family } from '../../../src/base/address.ts';

/** What a script runs on. */
export type SubjectKind = 'linux' | 'stack';

export interface Script {
  /** Where it stands: `handshake.pkt:12`. */
  readonly place: string;
  readonly title: string;
  /** The IP versions with which it runs. */
  readonly families: readonly Family[];
  /** What it runs on. */
  readonly subjects: readonly SubjectKind[];
  readonly events: readonly ScriptEvent[];
}

export interface ScriptEvent {
  /** The line of the file, from 1 on. */
  readonly line: number;
  /** The line's text, for messages. */
  readonly text: string;
  /** The only subject for which the event is meant. */
  readonly subject: SubjectKind | undefined;
  /** The only IP version for which the event is meant. */
  readonly family: Family | undefined;
  /** When it happens, counted from the event before: at the earliest. */
  readonly afterMs: number;
  /** At the latest. */
  readonly untilMs: number;
  readonly action: Action;
}

export type Action =
  /** With `isNext`, it directly follows the segment before: the subject's answers to that may wait. */
  | { readonly type: 'inject'; readonly segment: SegmentText; readonly isNext: boolean }
  /** With `isLast`, any other segments may come before it. */
  | { readonly type: 'expect'; readonly segment: SegmentText; readonly isLast: boolean }
  | { readonly type: 'nothing' }
  | { readonly type: 'icmp'; readonly error: IcmpText }
  | { readonly type: 'call'; readonly call: Call };

/** A segment as a script writes it. */
export interface SegmentText {
  /** Of `SFRPUEW.`; `.` is ACK. */
  readonly flags: string;
  readonly start: number;
  readonly length: number;
  /** Defined iff `flags` has ACK. */
  readonly ack: number | undefined;
  readonly window: WindowText;
  readonly urgent: number;
  /** `any` if they are not compared. */
  readonly options: readonly OptionText[] | 'any';
  /** What is wrong with an injected segment, on purpose. */
  readonly fault: 'checksum' | 'content' | undefined;
}

export interface WindowText {
  /** `*`: any. */
  readonly comparison: '*' | '=' | '>=' | '<=' | '>' | '<';
  readonly value: number;
}

/** A number, any number, or a name that the first expectation gives to a number. */
export type NumberText = number | '*' | `$${string}`;

export type OptionText =
  | { readonly kind: 'mss' | 'wscale'; readonly value: NumberText }
  | { readonly kind: 'sackOK' | 'nop' | 'eol' }
  | { readonly kind: 'TS'; readonly value: NumberText; readonly echo: NumberText }
  | { readonly kind: 'sack'; readonly blocks: readonly (readonly [number, number])[] }
  | { readonly kind: 'raw'; readonly bytes: Uint8Array };

export interface IcmpText {
  readonly kind: IcmpKind;
  /** The MTU of `frag_needed`, as in IPv4; IPv6 has 20 bytes more, so that the MSS is the same. */
  readonly mtu: number;
  /** The sequence number of the segment that it quotes, relative. */
  readonly quoted: number;
}

export const ICMP_KINDS = [
  'net',
  'host',
  'protocol',
  'port',
  'frag_needed',
  'admin',
  'time_exceeded',
] as const;
export type IcmpKind = (typeof ICMP_KINDS)[number];

export interface Call {
  readonly name: CallName;
  readonly argument: number;
  /** A count, the name of an error such as `ECONNRESET`, or undefined: it succeeds as a whole. */
  readonly result: number | string | undefined;
}

/** Each call, with whether it takes an argument. */
export const CALLS = {
  /** Begins to listen; at most `argument` connections wait. */
  listen: 'optional',
  /** Takes the next connection; the other calls mean the one taken last. */
  accept: 'none',
  /** Begins to connect. */
  connect: 'none',
  /** The connection is established. */
  connected: 'none',
  /** The connection has ended with the error that is the result. */
  error: 'none',
  write: 'needed',
  /** Reads at most so many bytes; 0 is the end of the stream. */
  read: 'needed',
  /** Ends the stream, not the connection. */
  shutdown: 'none',
  close: 'none',
  /** Resets the connection. */
  abort: 'none',
  nodelay: 'needed',
  /** Probes after so many seconds without traffic; then each second, at most 10. */
  keepalive: 'needed',
  /** In ms. */
  user_timeout: 'needed',
  /** The next SYN that the subject sends begins a new connection between the same ports. */
  rebase: 'none',
  // The stack has none of these.
  /** TCP_QUICKACK: 0 makes Linux delay acknowledgments from now on. */
  quickack: 'needed',
  sndbuf: 'needed',
  rcvbuf: 'needed',
  /** TCP_SYNCNT. */
  syncnt: 'needed',
  /** TCP_LINGER2: how many seconds an orphan stays in FIN-WAIT-2. */
  linger2: 'needed',
} as const;
export type CallName = keyof typeof CALLS;
