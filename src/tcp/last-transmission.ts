/**
 * What was true before the last transmission, so that it can be taken back when the device refuses the packet. Only the
 * packet that was built last can be refused, so one object serves all connections of an endpoint.
 * @module
 */
import type { TailProbe } from './tail-probe.ts';
import { IN_FLIGHT } from './transmission.ts';
import type { Transmissions } from './transmissions.ts';

export class LastTransmission {
  start = 0;
  end = 0;
  now: number = Number.NaN;
  isRetransmission = false;
  /** No other retransmission of the episode came before. */
  isFirst = false;
  timeoutAt: number = Number.NaN;
  probeAt: number = Number.NaN;
  wasProbeSent = false;
  wasMeasured = false;

  // The record of which [start, end) was sent again. Valid iff `isRetransmission`.
  state: number = IN_FLIGHT;
  time: number = Number.NaN;
  wasRetransmitted = false;

  /** The sender of the transmission; undefined if it cannot be taken back any more. */
  private of: object | undefined;

  /** Notes a transmission of `of`, before it changes `records`. */
  note(
    of: object,
    start: number,
    end: number,
    now: number,
    isRetransmission: boolean,
    records: Transmissions,
    probe: TailProbe
  ): void {
    this.of = of;
    this.start = start;
    this.end = end;
    this.now = now;
    this.isRetransmission = isRetransmission;
    this.wasProbeSent = probe.isSent;
    this.wasMeasured = probe.isMeasured;
    if (!isRetransmission) return;
    const record = records.at(records.indexOf(start));
    this.state = record.state;
    this.time = record.time;
    this.wasRetransmitted = record.isRetransmitted;
  }

  /** Returns whether the last transmission is one of `of`. It can be taken back once. */
  take(of: object): boolean {
    if (this.of !== of) return false;
    this.of = undefined;
    return true;
  }
}
