/**
 * `CaptureBuffer`: keeps the packets of chosen paths until somebody takes them, in bounded memory. What does not fit is
 * lost and counted, so that a slow reader never holds up a packet. Filter and packets are plain data, so that they may go
 * to another process.
 * @module
 */

import { IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import { IpPrefix } from '../base/prefix.ts';
import type { PacketCapture } from './capture.ts';
import type { PathStatus } from './path-table.ts';

/** One end of the paths to capture: all hosts, unless it is narrowed. */
export interface CaptureEnd {
  readonly realm?: string | undefined;
  /** Prefixes of real addresses, as text. */
  readonly hosts?: readonly string[] | undefined;
}

/** Which paths to capture, and how much of each packet. */
export interface CaptureFilter {
  readonly from: CaptureEnd;
  readonly to: CaptureEnd;
  /** Whether packets from `to` back to `from` are left out. */
  readonly isOneWay: boolean;
  /** How many bytes of each packet are kept at most. */
  readonly snapLength: number;
}

export interface CapturedPacket {
  /** `inbound`: as it came from the realm; `outbound`: as it goes into the realm, translated. */
  readonly direction: 'inbound' | 'outbound';
  readonly realm: string;
  /** The time of day in ms since 1970. */
  readonly timeMs: number;
  /** Its first bytes, without its virtio-net header. */
  readonly bytes: Uint8Array;
  /** Its length in bytes. */
  readonly length: number;
}

export interface CaptureBatch {
  readonly packets: readonly CapturedPacket[];
  /** How many packets were lost since the batch before, by realm. */
  readonly lost: Readonly<Record<string, number>>;
}

export class CaptureBuffer implements PacketCapture {
  readonly #snapLength: number;
  readonly #clock: Clock;
  readonly #matches: (path: PathStatus) => boolean;
  #packets: CapturedPacket[] = [];
  #lost: Record<string, number> = {};
  #bytes = 0;

  /** @throws {ApiMisuseError} if a text of the filter is not a prefix. */
  constructor({ from, to, isOneWay, snapLength }: CaptureFilter, clock: Clock) {
    this.#snapLength = snapLength;
    this.#clock = clock;
    const isFrom = matcherOf(from);
    const isTo = matcherOf(to);
    // What comes from a realm has its real source, and what goes into one its real destination.
    this.#matches = ({ ingress, source, egress, newDestination }) =>
      (isFrom(ingress, source) && isTo(egress, newDestination)) ||
      (!isOneWay && isTo(ingress, source) && isFrom(egress, newDestination));
  }

  wants(path: PathStatus): boolean {
    return this.#matches(path);
  }

  packet(
    direction: 'inbound' | 'outbound',
    realm: string,
    bytes: Uint8Array,
    start: number,
    end: number
  ): void {
    const kept = Math.min(end - start, this.#snapLength);
    if (this.#bytes + kept + PACKET_OVERHEAD > CAPTURE_BUFFER_BYTES) {
      this.#lost[realm] = (this.#lost[realm] ?? 0) + 1;
      return;
    }
    this.#bytes += kept + PACKET_OVERHEAD;
    this.#packets.push({
      direction,
      realm,
      timeMs: this.#clock.wallMs(),
      bytes: bytes.slice(start, start + kept),
      length: end - start,
    });
  }

  /** Returns what has come since the last call. */
  take(): CaptureBatch {
    const batch = { packets: this.#packets, lost: this.#lost };
    this.#packets = [];
    this.#lost = {};
    this.#bytes = 0;
    return batch;
  }
}

function matcherOf({ realm, hosts }: CaptureEnd): (realm: string, address: string) => boolean {
  const prefixes = hosts?.map((text) => IpPrefix.parse(text));
  return (name, address) => {
    if (realm !== undefined && name !== realm) return false;
    if (prefixes === undefined) return true;
    const parsed = IpAddress.parse(address);
    return prefixes.some((prefix) => prefix.contains(parsed));
  };
}

/** How many bytes wait at most until somebody takes them. */
export const CAPTURE_BUFFER_BYTES: number = 2 ** 20;
/** What a packet takes beside its bytes, about. */
const PACKET_OVERHEAD = 128;
