/**
 * The translator's contract (`docs/translation.md`) implemented a second time, for reading: objects, addresses as
 * text, lists, and checksums computed in full.
 * @module
 */

import type { VerdictName } from '../../src/translator/verdict.ts';
import { ICMP, ICMPV6 } from '../support/packets.ts';
import type { TextPlan, TextPresence } from '../support/text-of.ts';
import { VNET } from '../support/vnet.ts';
import { Fragments } from './fragments.ts';
import { type IpVersion, uint16, versionOf } from './headers.ts';
import { otherErrorHeader } from './icmp-errors.ts';
import { isPartial, segmentSize, translatedOffload } from './offload.ts';
import { type Packet, parseFrame } from './parse.ts';
import { Paths } from './paths.ts';
import { mayBeAnswered, rejection, tooBig } from './replies.ts';
import { isNumbered, joined, rewritten, transportStartIn } from './rewrite.ts';
import { Sessions } from './sessions.ts';
import { fitOf, mssFor } from './size.ts';
import { type Endpoint, type Path, Tables } from './tables.ts';

export interface NaiveResult {
  readonly verdict: VerdictName;
  /** Set with `Forward` and `NeedsPresence`. */
  readonly egress?: string;
  /** Set with `NeedsPresence`: the address of the ingress realm that needs a presence in `egress`. */
  readonly source?: string;
  /** Set with `NeedsPresence`: the IP version of the presence that it needs. */
  readonly family?: IpVersion;
  /** Set with `Forward`: the virtio-net header and the packet as they leave. */
  readonly frame?: Uint8Array;
  /** Set with `Forward`: the size to fragment the packet to, or 0. */
  readonly segmentTo?: number;
  /** Set with a drop that is answered: a virtio-net header of zeros and a packet. */
  readonly reply?: Uint8Array;
}

export interface NaiveOptions {
  readonly udpTimeoutMs?: number;
  readonly icmpTimeoutMs?: number;
  readonly fragmentTimeoutMs?: number;
  readonly replyGraceMs?: number;
  /** The limit of each ingress realm. */
  readonly maxFragments?: number;
}

/** Has no limits of tables and replies, and always enough headroom. */
export class NaiveTranslator {
  #tables: Tables;
  #now = 0;
  /** The identification for the next IPv4 packet without DF that was IPv6. */
  #identification = 0;
  readonly #sessions: Sessions;
  readonly #fragments: Fragments;
  readonly #paths: Paths;

  constructor(plan: TextPlan, options: NaiveOptions = {}) {
    this.#tables = new Tables(plan);
    this.#sessions = new Sessions(options.udpTimeoutMs ?? 300_000, options.icmpTimeoutMs ?? 60_000);
    this.#paths = new Paths(options.replyGraceMs ?? 120_000);
    this.#fragments = new Fragments(
      options.fragmentTimeoutMs ?? 15_000,
      options.maxFragments ?? 1024
    );
  }

  /** Replaces the plan; sessions and fragments whose path is in both go on. */
  load(plan: TextPlan): void {
    this.#tables = new Tables(plan);
    this.#sessions.keep(this.#tables);
    this.#paths.keep(this.#tables, this.#now);
    this.#fragments.keep(this.#tables);
  }

  /** Adds a presence to the plan. */
  bind(presence: TextPresence): void {
    this.#tables.add(presence);
  }

  advance(nowMs: number): void {
    this.#now = nowMs;
  }

  /** Translates a frame (a virtio-net header and one IP packet) that enters from `realm`. */
  translate(realm: string, frame: Uint8Array): NaiveResult {
    const packet = parseFrame(frame);
    if (typeof packet === 'string') return { verdict: packet };
    if (packet.kind === 'later-fragment') return this.#laterFragment(realm, frame, packet);
    if (packet.ip.fragment !== undefined) {
      const fault = this.#fragments.faultOfFirst(realm, packet.ip, this.#now);
      if (fault !== undefined) return { verdict: fault };
    }
    return this.#whole(realm, frame, packet);
  }

  /** Takes the checks 2 to 9. */
  #whole(realm: string, frame: Uint8Array, packet: Packet): NaiveResult {
    const tables = this.#tables;
    const bytes = frame.subarray(VNET);
    const { source, destination, protocol, ...flow } = flowOf(packet);
    const reject = (verdict: VerdictName): NaiveResult => {
      const answers = mayBeAnswered(packet) && tables.isSource(realm, source);
      const how = answers ? (tables.realm(realm).reject ?? 'drop') : 'drop';
      return { verdict, ...optional('reply', rejection(bytes, packet, how)) };
    };

    const behind = tables.behind(realm, destination);
    if (behind === undefined) {
      return tables.isInPool(realm, destination)
        ? reject('DropNoPresence')
        : { verdict: 'DropNoPresence' };
    }
    const own: Endpoint = { realm, address: source };
    if (!tables.isSource(realm, source)) return { verdict: 'DropSpoofed' };

    const isRequest =
      flow.mayBeRequest && tables.isPermitted(own, behind, protocol, flow.destinationPort);
    const isReply = flow.mayBeReply && tables.isPermitted(behind, own, protocol, flow.sourcePort);
    if (!isRequest && !isReply) return reject('DropNotPermitted');

    const session = isRequest
      ? {
          client: own,
          service: behind,
          protocol,
          clientPort: flow.sessionPorts[0],
          servicePort: flow.sessionPorts[1],
        }
      : {
          client: behind,
          service: own,
          protocol,
          clientPort: flow.sessionPorts[1],
          servicePort: flow.sessionPorts[0],
        };
    const hasSession = packet.kind !== 'error' && protocol !== 'tcp' && protocol !== 'sctp';

    const egress = behind.realm;
    const family = versionOf(behind.address);
    const presence = tables.presenceOf(own, egress, family);
    const paths = this.#paths;
    // An open path means a request, in this direction or the other.
    const isKnown =
      paths.has(realm, source, destination) ||
      (presence !== undefined && paths.has(egress, behind.address, presence));
    const isUnasked = !isRequest && !isKnown;
    if (isUnasked && (hasSession || !paths.isGrace(realm, egress, this.#now))) {
      return { verdict: 'DropNoSession' };
    }
    if (presence === undefined) return { verdict: 'NeedsPresence', egress, source, family };

    const path = { egress, source: presence, destination: behind.address };
    paths.hear(realm, this.#now);
    if (!isUnasked) paths.open({ realm, source, destination, path });
    if (hasSession && !isRequest && !this.#sessions.isOpen(session, this.#now)) {
      return { verdict: 'DropNoSession' };
    }
    const result = this.#sent(realm, frame, packet, path);
    if (result.verdict !== 'Forward') return result;
    if (hasSession && isRequest) {
      this.#sessions.request(session, { at: this.#now, realm, source, destination, path });
    }
    if (packet.ip.fragment !== undefined && !isUnasked) {
      this.#fragments.open(realm, packet.ip, path, this.#now);
    }
    return result;
  }

  #laterFragment(realm: string, frame: Uint8Array, packet: Packet): NaiveResult {
    const path = this.#fragments.pathOfLater(realm, packet.ip, this.#now);
    if (typeof path === 'string') return { verdict: path };
    const result = this.#sent(realm, frame, packet, path);
    if (result.verdict === 'Forward') this.#fragments.add(realm, packet.ip);
    return result;
  }

  /** Takes the checks 7 to 9 and builds the translated packet. */
  #sent(realm: string, frame: Uint8Array, packet: Packet, path: Path): NaiveResult {
    const bytes = frame.subarray(VNET);
    const [before, after] = [packet.ip.version, versionOf(path.source)];
    const fault = before === after ? undefined : versionFault(bytes, packet, false);
    if (fault !== undefined) return { verdict: fault };

    const mtu = this.#tables.realm(path.egress).mtu;
    const packetAfter = rewritten(bytes, packet, path, {
      isPartial: isPartial(frame),
      mss: Math.min(mssFor(before, this.#tables.realm(realm).mtu), mssFor(after, mtu)),
      identification: this.#identification,
      isQuoted: false,
    });
    const start = transportStartIn(packet, after);
    const leaving = { version: after, bytes: packetAfter, start, segment: segmentSize(frame) };
    const fit = fitOf(packet, leaving, mtu);
    if ('wouldFit' in fit) {
      const reply = mayBeAnswered(packet) ? tooBig(bytes, packet, fit.wouldFit) : undefined;
      return { verdict: 'DropTooBig', ...optional('reply', reply) };
    }
    if (before === 6 && isNumbered(packet, packetAfter)) {
      this.#identification = (this.#identification + 1) % 0x10000;
    }
    const header =
      before === after ? frame.subarray(0, VNET) : translatedOffload(frame, packet, after, start);
    return {
      verdict: 'Forward',
      egress: path.egress,
      frame: joined(header, packetAfter),
      segmentTo: fit.segmentTo,
    };
  }
}

/** The packet for the checks 2 to 6: for an ICMP error, the reply to the quoted packet. */
interface Flow {
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  /** The ports as permits know them: of `ip/N`, the number; of echo, 0. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** The ports as sessions know them: of echo, the identifier; of `ip/N`, none. */
  readonly sessionPorts: readonly [number, number];
  readonly mayBeRequest: boolean;
  readonly mayBeReply: boolean;
}

function flowOf(packet: Packet): Flow {
  if (packet.quote !== undefined) {
    const quoted = flowOf(packet.quote.packet);
    return {
      source: quoted.destination,
      destination: quoted.source,
      protocol: quoted.protocol,
      sourcePort: quoted.destinationPort,
      destinationPort: quoted.sourcePort,
      sessionPorts: [0, 0],
      mayBeRequest: true,
      mayBeReply: true,
    };
  }
  const { kind, ip, echo } = packet;
  const number = kind === 'ip' ? ip.protocol : undefined;
  const sourcePort = number ?? packet.sourcePort;
  const destinationPort = number ?? packet.destinationPort;
  return {
    source: ip.source,
    destination: ip.destination,
    protocol: kind.startsWith('echo') ? 'icmp' : kind,
    sourcePort,
    destinationPort,
    sessionPorts: echo === undefined ? [sourcePort, destinationPort] : [echo, echo],
    mayBeRequest: kind !== 'echo-reply',
    mayBeReply: kind !== 'echo-request' && !packet.opensSession,
  };
}

/** Returns why a packet cannot be translated between IPv4 and IPv6. */
function versionFault(
  bytes: Uint8Array,
  packet: Packet,
  isQuoted: boolean
): VerdictName | undefined {
  const { ip, kind, quote } = packet;
  if (ip.isAuthenticated) return 'DropUnsupported';
  if (ip.fragment !== undefined) {
    if (ip.protocol === ICMP || ip.protocol === ICMPV6) return 'DropFragment';
    // Without them, the offsets of the later ones would be others.
    if (ip.fragment.hasHeaders) return 'DropUnsupported';
    const lacksChecksum = kind === 'udp' && uint16(bytes, ip.length + 6) === 0;
    if (lacksChecksum && !isQuoted) return 'DropUnsupported';
  }
  if (quote === undefined) return undefined;
  const { length, payloadLength } = quote.packet.ip;
  const message = bytes.subarray(ip.length);
  if (otherErrorHeader(ip.version, message, length + payloadLength) === undefined) {
    return 'DropUnsupported';
  }
  return versionFault(quote.bytes, quote.packet, true);
}

function optional<Name extends string, T>(
  name: Name,
  value: T | undefined
): { readonly [key in Name]?: T } {
  return value === undefined ? {} : ({ [name]: value } as { readonly [key in Name]: T });
}
