/**
 * Who asked lately: replies other than those of TCP and SCTP pass only to a request
 * ([RFC 4787 section 4.3](https://www.rfc-editor.org/rfc/rfc4787#section-4.3),
 * [RFC 5508 section 3.2](https://www.rfc-editor.org/rfc/rfc5508#section-3.2)). Each realm's clients
 * have a table of their own, so that none can push out another's sessions. The client's next request
 * opens again what was lost.
 * @module
 */
import { checkWhole } from '../base/option-check.ts';
import { ICMP_IDENTIFIER, KIND_ECHO, type PacketKind } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import { REQUEST } from './layout.ts';
import { RecencyTable } from './recency-table.ts';

export interface SessionOptions {
  /**
   * Sessions of each client realm that there is room for, rounded up to a power of two; of more than
   * that, the oldest are forgotten. Default 65,536.
   */
  readonly maxSessions?: number;
  /** How long replies of UDP, UDP-Lite and `ip/N` pass after a request, in ms; default 300,000. */
  readonly udpTimeoutMs?: number;
  /** How long echo replies pass after a request, in ms; default 60,000. */
  readonly icmpTimeoutMs?: number;
}

/** What is used where an option is absent. */
export const SESSION_DEFAULTS: Readonly<Required<SessionOptions>> = Object.freeze({
  maxSessions: 65_536,
  udpTimeoutMs: 300_000,
  icmpTimeoutMs: 60_000,
});

export class Sessions {
  /** By index of the clients' realm. */
  readonly #tables: (RecencyTable | undefined)[] = [];
  readonly #maxSessions: number;
  readonly #udpTimeoutMs: number;
  readonly #icmpTimeoutMs: number;
  readonly #longestMs: number;

  /** @throws {ApiMisuseError} if an option is out of range. */
  constructor(options: SessionOptions) {
    const {
      maxSessions = SESSION_DEFAULTS.maxSessions,
      udpTimeoutMs = SESSION_DEFAULTS.udpTimeoutMs,
      icmpTimeoutMs = SESSION_DEFAULTS.icmpTimeoutMs,
    } = options;
    checkWhole('maxSessions', maxSessions, 1, 2 ** 24);
    checkWhole('udpTimeoutMs', udpTimeoutMs, 1, MAX_TIMEOUT_MS);
    checkWhole('icmpTimeoutMs', icmpTimeoutMs, 1, MAX_TIMEOUT_MS);
    this.#maxSessions = maxSessions;
    this.#udpTimeoutMs = udpTimeoutMs;
    this.#icmpTimeoutMs = icmpTimeoutMs;
    this.#longestMs = Math.max(udpTimeoutMs, icmpTimeoutMs);
  }

  /**
   * Whether a request of the session was forwarded lately.
   *
   * @param realm the client's
   * @param pair of the path from the client to the service
   * @param ports see `sessionPorts`
   */
  isOpen(realm: number, pair: number, kind: PacketKind, ports: number, now: number): boolean {
    const table = this.#tables[realm];
    if (table === undefined) return false;
    const at = table.find2(keyOf(pair, kind), ports);
    return at >= 0 && table.isRecent(at, now, this.#timeoutMs(kind));
  }

  /** Opens or refreshes the session of a request. Parameters as of `isOpen`. */
  touch(realm: number, pair: number, kind: PacketKind, ports: number, now: number): void {
    const table = this.#tables[realm] ?? this.#newTable(realm);
    const key = keyOf(pair, kind);
    const at = table.find2(key, ports);
    if (at >= 0) {
      table.words[at] = now;
      return;
    }
    table.key[0] = key;
    table.key[1] = ports;
    // Another's time may be longer than this one's.
    table.claim(now, this.#longestMs);
  }

  #newTable(realm: number): RecencyTable {
    const table = new RecencyTable(2, 1, 2 * this.#maxSessions, MAX_PROBES);
    this.#tables[realm] = table;
    return table;
  }

  #timeoutMs(kind: PacketKind): number {
    return kind >= KIND_ECHO ? this.#icmpTimeoutMs : this.#udpTimeoutMs;
  }
}

/** Both echoes are of one session, and no key is 0: pairs are not. */
function keyOf(pair: number, kind: PacketKind): number {
  return (pair << KIND_BITS) | (kind >= KIND_ECHO ? KIND_ECHO : kind);
}

/**
 * What tells the sessions between two hosts apart: the client's port and the service's, or the
 * identifier of an echo, or nothing but the protocol's number.
 *
 * @param side that the packet passes on: who of its ends is the client
 */
export function sessionPorts(view: DataView, header: PacketHeader, side: number): number {
  if (header.kind >= KIND_ECHO) {
    return view.getUint16(header.transport + ICMP_IDENTIFIER);
  }
  const { sourcePort, destinationPort } = header;
  return side === REQUEST
    ? (sourcePort << 16) | destinationPort
    : (destinationPort << 16) | sourcePort;
}

/** Four records are a cache line. */
const MAX_PROBES = 32;
/** Kinds fit in this, so that a key is never 0. */
const KIND_BITS = 3;
/** A day; times are kept modulo 49 days. */
const MAX_TIMEOUT_MS = 86_400_000;
