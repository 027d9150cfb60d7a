/**
 * Remembers recent requests. A reply, except of TCP and SCTP, passes only if its request was forwarded
 * recently ([RFC 4787 section 4.3](https://www.rfc-editor.org/rfc/rfc4787#section-4.3),
 * [RFC 5508 section 3.2](https://www.rfc-editor.org/rfc/rfc5508#section-3.2)). The clients of each realm
 * have their own table, so no realm can evict the sessions of another. The client's next request opens a
 * lost session again.
 * @module
 */
import { checkWhole } from '../base/option-check.ts';
import { ICMP_IDENTIFIER, KIND_ECHO, type PacketKind } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import { REQUEST } from './layout.ts';
import { RecencyTable } from './recency-table.ts';

export interface SessionOptions {
  /**
   * The number of sessions to keep for each client realm, rounded up to a power of two; a new one replaces
   * the oldest. Default 65,536.
   */
  readonly maxSessions?: number;
  /** How long replies of UDP, UDP-Lite and `ip/N` pass after a request, in ms; default 300,000. */
  readonly udpTimeoutMs?: number;
  /** How long echo replies pass after a request, in ms; default 60,000. */
  readonly icmpTimeoutMs?: number;
}

/** The defaults of the options. */
export const SESSION_DEFAULTS: Readonly<Required<SessionOptions>> = Object.freeze({
  maxSessions: 65_536,
  udpTimeoutMs: 300_000,
  icmpTimeoutMs: 60_000,
});

export class Sessions {
  /** The tables, by index of the clients' realm. */
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

  /** Forgets the sessions of the clients of a realm that is gone. */
  forget(realm: number): void {
    this.#tables[realm] = undefined;
  }

  /**
   * Returns whether a request of the session was forwarded recently.
   *
   * @param realm the client's realm
   * @param pair `PATH_PAIR` of the path from the client to the service
   * @param ports see `sessionPorts`
   */
  isOpen(realm: number, pair: number, kind: PacketKind, ports: number, now: number): boolean {
    const table = this.#tables[realm];
    if (table === undefined) return false;
    const at = table.find2(keyOf(pair, kind), ports);
    return at >= 0 && table.isRecent(at, now, this.#timeoutMs(kind));
  }

  /** Opens or refreshes the session of a request. The parameters are those of `isOpen`. */
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
    // The record that is replaced may have the longer timeout.
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

/** An echo request and its reply are of one session. A key is never 0, because a pair never is. */
function keyOf(pair: number, kind: PacketKind): number {
  return (pair << KIND_BITS) | (kind >= KIND_ECHO ? KIND_ECHO : kind);
}

/**
 * Returns what distinguishes the sessions between two hosts: the ports of the client and the service, the
 * identifier of an echo, or the protocol's number.
 *
 * @param side whether the packet passes as a request or as a reply
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

/** Four records fit in a cache line. */
const MAX_PROBES = 32;
/** The number of bits of a `PacketKind`. */
const KIND_BITS = 3;
/** One day; times are kept modulo 49 days. */
const MAX_TIMEOUT_MS = 86_400_000;
