/**
 * A model of one bulk flow over a path with a constant delay, a bottleneck and random loss, which drives a congestion
 * control as the connection does. Packets are one unit; the receiver acknowledges every second one, and at once while
 * something is missing; a packet is lost once the third one sent after it arrived.
 * @module
 */
import type { Random } from '../support/random.ts';

/** What the model calls of a congestion control. */
export interface Control {
  readonly cwnd: number;
  readonly phase: string;
  onAck(
    acked: number,
    now: number,
    rttMs: number,
    srttMs: number,
    isCwndLimited: boolean,
    roundEnded: boolean
  ): void;
  enterRecovery(flight: number, now: number): void;
  onRecoveryAck(
    delivered: number,
    inFlight: number,
    isUnaAdvanced: boolean,
    newlyLost: number
  ): void;
  onTransmit(bytes: number): void;
  exitRecovery(): void;
}

export interface Path {
  readonly rttMs: number;
  readonly loss: number;
  /** How long one packet occupies the bottleneck. */
  readonly packetMs: number;
  /** Packets that the bottleneck queues before it drops. */
  readonly queue: number;
}

export interface Outcome {
  /** Packets delivered in a round trip on average, without the first tenth of the time. */
  readonly meanWindow: number;
  readonly episodes: number;
  /** What is in flight at the end of each recovery, as a part of `cwnd`, which is ssthresh then. */
  readonly atExit: readonly number[];
}

interface Packet {
  readonly seq: number;
  /** The number of its transmission. */
  readonly order: number;
  readonly sentAt: number;
  /** When its ACK may arrive. */
  readonly at: number;
  readonly isLost: boolean;
}

export function runBulkFlow(
  control: Control,
  path: Path,
  unit: number,
  durationMs: number,
  random: Random
): Outcome {
  /** Packets on the way in the order of sending, which is that of arrival; `isLost` ones never arrive. */
  const onTheWay: Packet[] = [];
  let head = 0;
  const delivered = new Set<number>();
  const missing: Packet[] = [];
  const toResend: number[] = [];
  const atExit: number[] = [];
  let [order, una, next, inFlight, recover, roundEnd, episodes] = [0, 0, 0, 0, 0, 0, 0];
  let [now, linkFree, measured, heldAcks] = [0, 0, 0, 0];

  const transmit = (seq: number): void => {
    linkFree = Math.max(linkFree, now);
    const isLost = random.chance(path.loss) || (linkFree - now) / path.packetMs > path.queue;
    if (!isLost) linkFree += path.packetMs;
    onTheWay.push({ seq, order, sentAt: now, at: linkFree + path.rttMs, isLost });
    order++;
    inFlight++;
    control.onTransmit(unit);
  };
  const fill = (): void => {
    while ((inFlight + 1) * unit <= control.cwnd) transmit(toResend.shift() ?? next++);
  };

  fill();
  while (now < durationMs) {
    const packet = onTheWay[head];
    if (packet === undefined) {
      // Everything on the way is lost: a probe finds out.
      now += 2 * path.rttMs;
      transmit(next++);
      continue;
    }
    head++;
    if (head > 10_000) {
      onTheWay.splice(0, head);
      head = 0;
    }
    now = Math.max(now, packet.at);
    if (packet.isLost) {
      missing.push(packet);
      continue;
    }
    inFlight--;
    delivered.add(packet.seq);
    if (now > durationMs / 10) measured++;
    heldAcks++;
    const isInOrder = missing.length === 0 && packet.seq === una;
    if (isInOrder && heldAcks < 2 && control.phase === 'open') continue;
    const flight = inFlight + heldAcks;
    let lost = 0;
    while (missing[0] !== undefined && missing[0].order <= packet.order - 3) {
      toResend.push(missing.shift()!.seq);
      inFlight--;
      lost++;
    }
    let acked = 0;
    while (delivered.delete(una)) {
      una++;
      acked++;
    }
    const roundEnded = una > roundEnd;
    if (roundEnded) roundEnd = next;
    if (control.phase === 'recovery' && una >= recover) {
      control.exitRecovery();
      atExit.push((inFlight * unit) / control.cwnd);
    }
    if (lost > 0 && control.phase === 'open') {
      control.enterRecovery(flight * unit, now);
      recover = next;
      episodes++;
    }
    if (control.phase === 'recovery') {
      control.onRecoveryAck(heldAcks * unit, inFlight * unit, acked > 0, lost * unit);
    } else if (acked > 0) {
      const rtt = now - packet.sentAt;
      control.onAck(acked * unit, now, rtt, path.rttMs, true, roundEnded);
    }
    heldAcks = 0;
    fill();
  }
  return { meanWindow: (measured / (0.9 * durationMs)) * path.rttMs, episodes, atExit };
}
