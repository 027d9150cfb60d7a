/**
 * A segment in the words of RFC 9293 section 3.3.1 (SEG.SEQ, SEG.ACK, SEG.LEN, SEG.WND), and in its notation:
 * `<SEQ=101><ACK=301><CTL=ACK>`.
 * @module
 */
import { plus } from './sequence.ts';

export type Control = 'URG' | 'ACK' | 'PSH' | 'RST' | 'SYN' | 'FIN';

export interface Segment {
  readonly SEQ: number;
  /** Meaningful only with the control bit ACK. */
  readonly ACK: number;
  readonly CTL: readonly Control[];
  /** The field as it is in the header: not scaled. */
  readonly WND: number;
  /** The urgent pointer; meaningful only with the control bit URG. */
  readonly UP: number;
  readonly text: readonly number[];
  /** Option values; absent: the segment does not have the option. */
  readonly options: Options;
}

export interface Options {
  readonly mss?: number;
  /** The shift count of RFC 7323 section 2.2. */
  readonly windowScale?: number;
  /** TSval and TSecr of RFC 7323 section 3.2. */
  readonly timestamps?: Timestamps;
  /** RFC 2018 section 2. */
  readonly isSackPermitted?: boolean;
  /** RFC 2018 section 3: pairs of edges, the right one not included. */
  readonly sack?: readonly (readonly [left: number, right: number])[];
}

export interface Timestamps {
  readonly TSval: number;
  readonly TSecr: number;
}

/** A segment of these fields; without text, window 0, no options unless given. */
export function segmentOf(fields: Partial<Segment> & Pick<Segment, 'SEQ' | 'CTL'>): Segment {
  return { ACK: 0, WND: 0, UP: 0, text: [], options: {}, ...fields };
}

export function has(segment: Segment, control: Control): boolean {
  return segment.CTL.includes(control);
}

/** "SEG.LEN = the number of octets occupied by the data in the segment (counting SYN and FIN)", section 3.4. */
export function lengthOf(segment: Segment): number {
  return segment.text.length + (has(segment, 'SYN') ? 1 : 0) + (has(segment, 'FIN') ? 1 : 0);
}

/** SEG.SEQ+SEG.LEN. */
export function endOf(segment: Segment): number {
  return plus(segment.SEQ, lengthOf(segment));
}

/** The sequence number of the first octet of text: SYN stands in front of it. */
export function textStartOf(segment: Segment): number {
  return plus(segment.SEQ, has(segment, 'SYN') ? 1 : 0);
}

/** The notation of section 3.5. */
export function notationOf(segment: Segment): string {
  const fields = [`SEQ=${segment.SEQ}`];
  if (has(segment, 'ACK')) fields.push(`ACK=${segment.ACK}`);
  if (segment.text.length > 0) fields.push(`DATA=${segment.text.length}`);
  const order: readonly Control[] = ['SYN', 'RST', 'FIN', 'ACK'];
  const bits = order.filter((bit) => has(segment, bit));
  if (bits.length > 0) fields.push(`CTL=${bits.join(',')}`);
  return fields.map((field) => `<${field}>`).join('');
}
