/**
 * Finds the conversations of a capture, and which end of each is the service. A plan is inferred from that. These rules
 * say which end is the client, the first that applies:
 *
 * 1. the packet that opens the conversation: a SYN (TCP), an INIT (SCTP), an echo request; or the answer to it;
 * 2. without one, for TCP: the end that has answered other clients, else the lower port, is the service;
 * 3. for other protocols: the first packet goes to the service, unless it comes from a well-known port of UDP.
 *
 * A service is an end that answers; for UDP and protocols without ports also one that never does, such as a log server.
 * The tables are bounded.
 * @module
 */
import {
  FragmentPart,
  PacketKind,
  Parse,
  TCP_FLAG_ACK,
  TCP_FLAG_RST,
  TCP_FLAG_SYN,
  TCP_FLAGS,
} from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';
import type { PreparedPacket } from './prepared-packet.ts';

/** One conversation as it was understood. The ends are keys: the bytes of the address and of the port. */
export interface Conversation {
  readonly protocol: number;
  readonly client: string;
  readonly server: string;
  /** Whether the server is a service: it has answered, or its protocol needs no answer. */
  readonly isAnswered: boolean;
}

/** Which way a packet goes. */
export type Way =
  /** To the service. */
  | 'request'
  /** To the client. */
  | 'reply'
  /** Its conversation is not in the table, because that was full. */
  | 'unknown';

export class Conversations {
  /** What is known of each conversation, by `#keyOf`. */
  readonly #states = new Map<string, number>();
  readonly #max: number;
  /** How many packets belong to conversations for which the table had no room. */
  unknownPackets = 0;
  /** Whether the lower end of the packet that was looked up last is its source. */
  #isSourceLow = false;

  /** @param max how many conversations are kept. Default 262,144. */
  constructor(max: number = MAX_CONVERSATIONS) {
    this.#max = max;
  }

  get count(): number {
    return this.#states.size;
  }

  /** Takes note of a packet that goes to one host. Packets that belong to no conversation change nothing. */
  observe(packet: PreparedPacket): void {
    const { header } = packet;
    if (packet.outcome !== Parse.Ok || header.part === FragmentPart.Later) return;
    if (header.kind === PacketKind.IcmpError) {
      if (packet.hasQuote && isPortUnreachable(packet)) this.#learnNoService(packet);
      return;
    }
    const key = this.#keyOf(packet, header);
    const before = this.#states.get(key) ?? 0;
    if (before === 0 && this.#states.size >= this.#max) {
      this.unknownPackets++;
      return;
    }
    const after = this.#learn(before, packet, header);
    if (after !== before) this.#states.set(key, after);
  }

  /**
   * Decides what was left open, after the last packet.
   *
   * @param isService whether an end is a service that is known otherwise, by the same keys as `Conversation.server`
   */
  finish(isService: (protocol: number, end: string) => boolean = () => false): void {
    const answering = new Set<string>();
    for (const [key, state] of this.#states) {
      if ((state & SURE) !== 0 && (state & ANSWERED) !== 0) {
        answering.add(key[0]! + serverOf(key, state));
      }
    }
    for (const [key, state] of this.#states) {
      if ((state & SURE) !== 0) continue;
      const protocol = key.charCodeAt(0);
      const [low, high] = endsOf(key);
      const isKnown = (end: string) => isService(protocol, end) || answering.has(key[0]! + end);
      const [isLow, isHigh] = [isKnown(low), isKnown(high)];
      if (isLow === isHigh) continue;
      this.#states.set(key, isHigh ? state | LOW_IS_CLIENT : state & ~LOW_IS_CLIENT);
    }
  }

  /** All conversations. Valid after `finish`. */
  *all(): Generator<Conversation> {
    for (const [key, state] of this.#states) {
      const protocol = key.charCodeAt(0);
      const [low, high] = endsOf(key);
      const isLowClient = (state & LOW_IS_CLIENT) !== 0;
      const needsAnswer = (state & NEEDS_ANSWER) !== 0;
      yield {
        protocol,
        client: isLowClient ? low : high,
        server: isLowClient ? high : low,
        isAnswered: !needsAnswer || (state & ANSWERED) !== 0,
      };
    }
  }

  /** Which way a packet goes whose header is right and that is no later fragment. Valid after `finish`. */
  wayOf(packet: PreparedPacket, header: PacketHeader): Way {
    const state = this.#states.get(this.#keyOf(packet, header));
    if (state === undefined) return 'unknown';
    return ((state & LOW_IS_CLIENT) !== 0) === this.#isSourceLow ? 'request' : 'reply';
  }

  /** What a port that is not open has received is no service, unless it has answered. */
  #learnNoService(packet: PreparedPacket): void {
    const key = this.#keyOf(packet, packet.quote);
    const state = this.#states.get(key);
    if (state !== undefined) this.#states.set(key, state | NEEDS_ANSWER);
  }

  /** The protocol, the lower end, the higher end: the same for both ways. */
  #keyOf(packet: PreparedPacket, header: PacketHeader): string {
    const width = header.family === 4 ? 4 : 16;
    const { source, transport } = header;
    let from = packet.key(source, source + width);
    let to = packet.key(source + width, source + 2 * width);
    if (header.kind < PacketKind.Other) {
      from += packet.key(transport, transport + 2);
      to += packet.key(transport + 2, transport + 4);
    }
    this.#isSourceLow = from <= to;
    const protocol = String.fromCharCode(header.protocol);
    return this.#isSourceLow ? protocol + from + to : protocol + to + from;
  }

  #learn(before: number, packet: PreparedPacket, header: PacketHeader): number {
    const fromLow = this.#isSourceLow ? LOW_IS_CLIENT : 0;
    const toLow = LOW_IS_CLIENT - fromLow;
    switch (header.kind) {
      case PacketKind.Tcp: {
        const flags = packet.view.getUint8(header.transport + TCP_FLAGS);
        if ((flags & TCP_FLAG_SYN) !== 0) {
          const isAnswer = (flags & TCP_FLAG_ACK) !== 0;
          return isAnswer
            ? KNOWN | SURE | NEEDS_ANSWER | ANSWERED | toLow
            : opened(before, fromLow);
        }
        const state = before === 0 ? byPorts(header, fromLow, toLow) : before;
        // A client acknowledges only what a service has answered.
        return (flags & TCP_FLAG_RST) === 0 ? state | ANSWERED : state;
      }
      case PacketKind.Sctp: {
        if (header.opensSession) return opened(before, fromLow);
        return answered(before === 0 ? byPorts(header, fromLow, toLow) : before, fromLow);
      }
      case PacketKind.EchoRequest:
        return opened(before, fromLow);
      case PacketKind.EchoReply:
        return KNOWN | SURE | NEEDS_ANSWER | ANSWERED | toLow;
      default: {
        const isAnswer = isWellKnown(header.sourcePort) && !isWellKnown(header.destinationPort);
        return before === 0 ? KNOWN | (isAnswer ? toLow : fromLow) : answered(before, fromLow);
      }
    }
  }
}

function isPortUnreachable({ header, view }: PreparedPacket): boolean {
  const typeAndCode = view.getUint16(header.transport);
  return typeAndCode === (header.family === 4 ? PORT_UNREACHABLE_V4 : PORT_UNREACHABLE_V6);
}

function opened(before: number, fromLow: number): number {
  return KNOWN | SURE | NEEDS_ANSWER | (before & ANSWERED) | fromLow;
}

/** A packet that comes from the end that is not the client is an answer. */
function answered(state: number, fromLow: number): number {
  return (state & LOW_IS_CLIENT) === fromLow ? state : state | ANSWERED;
}

/** The lower port is the service's; with equal ports, the packet's destination is. */
function byPorts(header: PacketHeader, fromLow: number, toLow: number): number {
  const client = header.sourcePort < header.destinationPort ? toLow : fromLow;
  return KNOWN | NEEDS_ANSWER | client;
}

function isWellKnown(port: number): boolean {
  return port < 1024;
}

function serverOf(key: string, state: number): string {
  return endsOf(key)[(state & LOW_IS_CLIENT) !== 0 ? 1 : 0];
}

function endsOf(key: string): readonly [string, string] {
  const middle = (key.length + 1) / 2;
  return [key.slice(1, middle), key.slice(middle)];
}

const MAX_CONVERSATIONS = 262_144;

/** Type and code of ICMP and ICMPv6. */
const PORT_UNREACHABLE_V4 = 0x0303;
const PORT_UNREACHABLE_V6 = 0x0104;

const KNOWN = 1;
/** Whether the client is the end whose key is the lower one. */
const LOW_IS_CLIENT = 2;
/** A packet has shown which end is the client. */
const SURE = 4;
/** Only an end that has answered is a service: the protocol is such, or its port was reported as not open. */
const NEEDS_ANSWER = 8;
const ANSWERED = 16;
