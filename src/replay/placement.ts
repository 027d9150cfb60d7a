/**
 * Puts a captured packet where it would be if its hosts were in the realms of a plan: in the realm of its sender, which
 * sends to the presence of the other host. Checksums are updated as the translator does it, so that a wrong one stays
 * wrong. In an ICMP error, the packet that it quotes is changed as well: it is the packet as the sender of the error has
 * got it.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { foldDelta, longDelta } from '../packet/checksum.ts';
import { FragmentPart, PacketKind, Parse } from '../packet/fields.ts';
import {
  rewriteHeaderChecksum,
  rewriteQuote,
  rewriteTransportChecksum,
} from '../translator/rewrite.ts';
import type { Conversations, Way } from './conversations.ts';
import type { PreparedPacket } from './prepared-packet.ts';
import type { RealmIndex, ReplayPlan } from './replay-plan.ts';

/** The realm of a packet, or why it is not judged. */
export type Place =
  | RealmIndex
  /** Both hosts are in one realm. */
  | 'local'
  /** Its conversation, or one of its hosts, is beyond what the tables hold. */
  | 'beyond';

export class Placement {
  /** Whether the packet goes to the client of its conversation. Valid after `place` of a packet for one host. */
  isReply = false;
  readonly #plan: ReplayPlan;
  readonly #conversations: Conversations;
  /** Which way the later fragments of a datagram go, by its addresses and identification. */
  readonly #datagrams = new Map<string, 'request' | 'reply'>();
  /** New source and destination of an ICMP error. */
  readonly #words = new Int32Array(8);

  constructor(plan: ReplayPlan, conversations: Conversations) {
    this.#plan = plan;
    this.#conversations = conversations;
  }

  /**
   * Changes the destination of the packet to that of a packet in the realm that is returned. A packet whose headers are
   * wrong, or that goes to several hosts, stays as it is.
   */
  place(packet: PreparedPacket, isToGroup: boolean): Place {
    const { header } = packet;
    this.isReply = false;
    if (packet.outcome !== Parse.Ok) return 0;
    const width = header.family === 4 ? 4 : 16;
    if (isToGroup) return this.#plan.realmOf(packet.addressAt(header.source), 'request');
    const way = this.#wayOf(packet);
    if (way === 'unknown') return 'beyond';
    this.isReply = way === 'reply';
    const realm = this.#plan.realmOf(packet.addressAt(header.source), way);
    const back = way === 'request' ? 'reply' : 'request';
    if (realm === this.#plan.realmOf(packet.addressAt(header.source + width), back)) return 'local';
    if (header.kind === PacketKind.IcmpError && header.part === FragmentPart.Whole) {
      this.#placeError(packet, realm, width);
      return realm;
    }
    // A host has a presence in the other realm if it has sent something there.
    const source = packet.key(header.source, header.source + width);
    const other = realm === 0 ? 1 : 0;
    if (this.#plan.hostsWithoutPresence > 0 && !this.#plan.presence(other, source)) return 'beyond';
    const presence = this.#destination(packet, realm, header.source + width, width);
    if (presence === undefined) return realm;
    const delta = put(packet.view, header.source + width, presence);
    rewriteHeaderChecksum(packet.view, header, delta);
    if (header.part !== FragmentPart.Later && header.checksum + 2 <= packet.end) {
      rewriteTransportChecksum(packet.view, header, delta, false);
    }
    return realm;
  }

  #wayOf(packet: PreparedPacket): Way {
    const { header } = packet;
    if (header.part !== FragmentPart.Whole) return this.#wayOfFragment(packet);
    if (header.kind !== PacketKind.IcmpError) return this.#conversations.wayOf(packet, header);
    if (!packet.hasQuote) return 'reply';
    const quoted = this.#conversations.wayOf(packet, packet.quote);
    return quoted === 'unknown' ? quoted : quoted === 'request' ? 'reply' : 'request';
  }

  /** Later fragments have no ports. If the first one has not been seen, the translator refuses them on any way. */
  #wayOfFragment(packet: PreparedPacket): Way {
    const { header } = packet;
    const width = header.family === 4 ? 4 : 16;
    const addresses = packet.key(header.source, header.source + 2 * width);
    const key = `${addresses}${header.protocol}/${header.identification}`;
    if (header.part === FragmentPart.Later) return this.#datagrams.get(key) ?? 'request';
    const way = this.#conversations.wayOf(packet, header);
    if (way === 'unknown') return way;
    if (this.#datagrams.size >= MAX_DATAGRAMS) this.#datagrams.clear();
    this.#datagrams.set(key, way);
    return way;
  }

  #placeError(packet: PreparedPacket, realm: RealmIndex, width: number): void {
    const { header, quote, view, hasQuote } = packet;
    if (!hasQuote) return;
    const presence = this.#destination(packet, realm, quote.source, width);
    if (presence === undefined) return;
    const before = packet.key(quote.source, quote.source + width);
    const destination = header.source + width;
    const isToSender = before === packet.key(destination, destination + width);
    const quoteDelta = deltaOf(view, quote.source, presence);
    const outerDelta = isToSender ? put(view, destination, presence) : 0;
    const count = width / 4;
    for (let i = 0; i < count; i++) {
      // Where the quoted packet has gone to stays.
      this.#words[i] = view.getInt32(quote.source + width + 4 * i);
      this.#words[count + i] = presence.words[i]!;
    }
    rewriteHeaderChecksum(view, header, outerDelta);
    rewriteQuote(view, header, quote, this.#words, 0, quoteDelta, outerDelta);
  }

  /** What stands in the realm for the host whose address is at an offset. */
  #destination(
    packet: PreparedPacket,
    realm: RealmIndex,
    at: number,
    width: number
  ): IpAddress | undefined {
    return this.#plan.presence(realm, packet.key(at, at + width));
  }
}

/** Writes an address. Returns the delta of checksums that cover it. */
function put(view: DataView, at: number, address: IpAddress): number {
  const delta = deltaOf(view, at, address);
  for (let i = 0; i < address.words.length; i++) view.setInt32(at + 4 * i, address.words[i]!);
  return delta;
}

function deltaOf(view: DataView, at: number, address: IpAddress): number {
  let sum = 0;
  for (let i = 0; i < address.words.length; i++) {
    sum += longDelta(view.getInt32(at + 4 * i), address.words[i]!);
  }
  return foldDelta(sum);
}

/** How many datagrams are remembered whose fragments may follow. */
const MAX_DATAGRAMS = 4096;
