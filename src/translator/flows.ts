/**
 * Remembers to which address of its destination a flow goes, while hosts have several addresses in a realm because that
 * is renumbered: an answer must leave under the address that the request went to, or the client does not know it. No
 * other packet needs it, and the table is empty again when no host has several addresses.
 *
 * The key is the pair of hosts, the protocol and the ports, as the two hosts see them. The translation does not change
 * ports, so two flows of one client and one port to both addresses of a service are one flow to the service; the one
 * that begins later gets the answers. The clients of each realm have their own table, so no realm can evict the flows of
 * another. When a table is full, a new flow replaces the one whose last request is the oldest, and this is counted.
 *
 * An answer to a flow that is not known, for example because this process has started since, leaves under the address
 * that ends first: a flow from before the renumbering. The next packet of the client makes its flow known.
 * @module
 */
import { foldDelta, longDelta } from '../packet/checksum.ts';
import { FragmentPart, KIND_ECHO, KIND_TCP, type PacketKind } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import { PATH_DELTA, PATH_PAIR, PATH_ROUTE, REPLY, REQUEST, ROUTE_EGRESS } from './layout.ts';
import { NO_PAIR } from './path-pairs.ts';
import type { PathTable } from './path-table.ts';
import { sidesOf } from './policy.ts';
import { RecencyTable } from './recency-table.ts';
import { sessionPorts } from './sessions.ts';

/** A packet on a path of which the flow decides the new source. */
export interface FlowPacket {
  /** The index of the ingress realm. */
  readonly realm: number;
  readonly view: DataView;
  /** The packet itself, or the packet that an ICMP error quotes. */
  readonly header: PacketHeader;
  readonly table: PathTable;
  readonly path: number;
  /** The value of the path's route begins at this index of `routes`. */
  readonly routes: Int32Array;
  /** The IP version in the egress realm. */
  readonly family: 4 | 6;
}

export class Flows {
  /** The result of `divert`: the new source, then the new destination, as a path has them. */
  readonly addresses: Int32Array = new Int32Array(8);
  /** The checksum delta of both. */
  delta = 0;
  /** The tables, by index of the realm that requests come from. */
  #tables: (RecencyTable | undefined)[] = [];
  readonly #maxFlows: number;

  /** @param maxFlows the number of flows to keep for each realm, rounded up to a power of two */
  constructor(maxFlows: number) {
    this.#maxFlows = maxFlows;
  }

  /** How many flows were replaced by newer ones, because a table was full. */
  get replaced(): number {
    return this.#tables.reduce((sum, table) => sum + (table?.replaced ?? 0), 0);
  }

  /** Forgets all flows: no host has several addresses any more. */
  clear(): void {
    if (this.#tables.length > 0) this.#tables = [];
  }

  /**
   * Returns whether the packet answers a flow that is known. Then `addresses` and `delta` are those with which it leaves,
   * in place of those of the path. A packet that is no answer is noted as one of its flow.
   *
   * @param side the side on which it passes, 0 for a later fragment
   * @param now in ms; undefined in a dry run, which notes nothing
   */
  divert(packet: FlowPacket, side: number, now: number | undefined): boolean {
    const { realm, view, header, table, path } = packet;
    const value = path * table.stride + table.keyWords;
    const pair = table.words[value + PATH_PAIR]!;
    if (pair === NO_PAIR) return false;
    const egress = packet.routes[table.words[value + PATH_ROUTE]! + ROUTE_EGRESS]!;
    const { part, opensSession } = header;
    const kind = foldedKind(header.kind);
    if (part === FragmentPart.Later) {
      const at = this.#find(egress, pair ^ 1, FRAGMENT, header.identification);
      return at >= 0 && this.#take(packet, egress, at);
    }
    const isAnswer = (sidesOf(header.kind, opensSession) & REPLY) !== 0;
    const asked = isAnswer
      ? this.#find(egress, pair ^ 1, kind, sessionPorts(view, header, REPLY))
      : -1;
    if (asked >= 0) {
      this.#take(packet, egress, asked);
      if (part === FragmentPart.First && now !== undefined) {
        const { words } = this.#tables[egress]!;
        const address = words.slice(asked + ADDRESS, asked + ADDRESS + 4);
        this.#note(egress, pair ^ 1, FRAGMENT, header.identification, address, now);
      }
      return true;
    }
    if (side !== REQUEST || now === undefined) return false;
    const ports = sessionPorts(view, header, REQUEST);
    // A segment of an older flow with these ports does not take the answers from a newer one.
    const known = kind === KIND_TCP && !opensSession ? this.#find(realm, pair, kind, ports) : -1;
    if (known >= 0) this.#tables[realm]!.words[known] = now;
    else this.#note(realm, pair, kind, ports, destinationOf(table, path), now);
    return false;
  }

  /**
   * Does the same for an ICMP error about a packet: it takes the way of an answer to that.
   *
   * @param packet with the header of the quoted packet
   */
  divertError(packet: FlowPacket): boolean {
    const { view, header, table, path } = packet;
    const value = path * table.stride + table.keyWords;
    const pair = table.words[value + PATH_PAIR]!;
    if (pair === NO_PAIR) return false;
    const egress = packet.routes[table.words[value + PATH_ROUTE]! + ROUTE_EGRESS]!;
    const ports = sessionPorts(view, header, REQUEST);
    const asked = this.#find(egress, pair ^ 1, foldedKind(header.kind), ports);
    return asked >= 0 && this.#take(packet, egress, asked);
  }

  #find(realm: number, pair: number, kind: number, ports: number): number {
    return this.#tables[realm]?.find2(keyOf(pair, kind), ports) ?? -1;
  }

  #note(
    realm: number,
    pair: number,
    kind: number,
    ports: number,
    address: Int32Array,
    now: number
  ): void {
    this.#tables[realm] ??= new RecencyTable(2, 4, 2 * this.#maxFlows, MAX_PROBES);
    const table = this.#tables[realm]!;
    table.key[0] = keyOf(pair, kind);
    table.key[1] = ports;
    const at = table.claim(now, LONGEST_MS);
    table.words.set(address, at + ADDRESS);
  }

  /** Puts the address of a flow in place of the path's new source. */
  #take({ table, path, family }: FlowPacket, realm: number, at: number): true {
    const address = this.#tables[realm]!.words;
    const { words, at: from, width: step } = table.newAddresses(path, family);
    const width = family === 4 ? 1 : 4;
    let delta = table.words[path * table.stride + table.keyWords + PATH_DELTA]!;
    for (let i = 0; i < width; i++) {
      const source = address[at + ADDRESS + i]!;
      delta += longDelta(words[from + i]!, source);
      this.addresses[i] = source;
      this.addresses[step + i] = words[from + step + i]!;
    }
    this.delta = foldDelta(delta);
    return true;
  }
}

/** Returns the destination in a path's key, in the ingress realm. */
function destinationOf(table: PathTable, path: number): Int32Array {
  const at = path * table.stride + 1 + table.width;
  return table.words.slice(at, at + table.width);
}

/** An echo request and its reply are of one flow. */
function foldedKind(kind: PacketKind): number {
  return kind >= KIND_ECHO ? KIND_ECHO : kind;
}

/** A key is never 0, because `pair` never is. */
function keyOf(pair: number, kind: number): number {
  return (pair << KIND_BITS) | kind;
}

/** In place of a kind, the highest of which is `KIND_ECHO`: the datagram with an identification, whose later fragments have no ports. */
const FRAGMENT = 7;
/** The offset of the address in a record, behind the time and the key. */
const ADDRESS = 3;
const MAX_PROBES = 32;
/** The number of bits of a `PacketKind`. */
const KIND_BITS = 3;
/** No flow ends by itself: a TCP connection may be silent for hours. Times are kept modulo 49 days. */
const LONGEST_MS: number = 2 ** 32 - 1;
