/**
 * What RFC 7323 adds to the processing of segments: negotiation of both options, protection against wrapped sequence
 * numbers (PAWS, section 5.3, rules R1 to R5), and which timestamp is echoed (section 4.3).
 * @module
 */
import { has, type Segment } from './segment.ts';
import { isAtMost, isLess } from './sequence.ts';
import type { Tcb } from './tcb.ts';

/** What both SYNs have is used. The shift count is at most 14 (section 2.3). */
export function negotiate(tcb: Tcb, SYN: Segment): void {
  const { timestamps, windowScale } = SYN.options;
  tcb.TS.isUsed = tcb.choices.usesTimestamps && timestamps !== undefined;
  if (tcb.TS.isUsed) record(tcb, timestamps!.TSval);
  tcb.hasWindowScale = tcb.choices.windowScale !== undefined && windowScale !== undefined;
  tcb.SND.shift = tcb.hasWindowScale ? Math.min(windowScale!, 14) : 0;
  tcb.RCV.shift = tcb.hasWindowScale ? tcb.choices.windowScale! : 0;
}

/** Section 2.3: "SND.WND = SEG.WND << Snd.Wind.Shift", and never for a SYN. */
export function scaledWindow(tcb: Tcb, SEG: Segment): number {
  return has(SEG, 'SYN') ? SEG.WND : SEG.WND * 2 ** tcb.SND.shift;
}

/** Section 3.2: a segment without the option, which is not a RST, is silently dropped once both ends use it. */
export function lacksTimestamps(tcb: Tcb, SEG: Segment): boolean {
  if (!tcb.TS.isUsed || !tcb.choices.dropsWithoutTimestamps) return false;
  return !has(SEG, 'RST') && SEG.options.timestamps === undefined;
}

/**
 * R1: "If there is a Timestamps option in the arriving segment, SEG.TSval < TS.Recent, TS.Recent is valid ..., and if
 * the RST bit is not set, then treat the arriving segment as not acceptable". TS.Recent is valid for 24 days (section
 * 5.5).
 */
export function isRejectedByPaws(tcb: Tcb, SEG: Segment): boolean {
  const { timestamps } = SEG.options;
  if (!tcb.TS.isUsed || timestamps === undefined || has(SEG, 'RST')) return false;
  if (tcb.choices.now() - tcb.TS.recentAt > DAYS_24) return false;
  return isLess(timestamps.TSval, tcb.TS.Recent);
}

/**
 * R3: "If an arriving segment satisfies SEG.TSval >= TS.Recent and SEG.SEQ <= Last.ACK.sent (see Section 4.3), then
 * record its timestamp in TS.Recent." A RST records nothing: its sequence number is checked later.
 */
export function recordTimestamp(tcb: Tcb, SEG: Segment): void {
  const { timestamps } = SEG.options;
  if (!tcb.TS.isUsed || timestamps === undefined || has(SEG, 'RST')) return;
  if (tcb.state === 'TIME-WAIT' && !tcb.choices.recordsInTimeWait) return;
  const isStale = tcb.choices.now() - tcb.TS.recentAt > DAYS_24;
  if (!isStale && isLess(timestamps.TSval, tcb.TS.Recent)) return;
  if (isAtMost(SEG.SEQ, tcb.TS.lastAckSent)) record(tcb, timestamps.TSval);
}

function record(tcb: Tcb, TSval: number): void {
  tcb.TS.Recent = TSval;
  tcb.TS.recentAt = tcb.choices.now();
}

const DAYS_24 = 24 * 24 * 3_600_000;
