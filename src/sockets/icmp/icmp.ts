/**
 * ICMP ([RFC 792](https://www.rfc-editor.org/rfc/rfc792)) and ICMPv6
 * ([RFC 4443](https://www.rfc-editor.org/rfc/rfc4443)) of the stack: answers echo requests, hands errors to the
 * protocol whose packet they quote, sends errors for packets that nobody wants, and learns path MTUs.
 * @module
 */
import { type Family, IpAddress } from '../../base/address.ts';
import {
  ICMP_HEADER,
  ICMP_IDENTIFIER,
  IPV4_MIN_HEADER,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  PacketKind,
  Protocol,
} from '../../packet/fields.ts';
import type { PacketHeader } from '../../packet/header.ts';
import { hasRightChecksum, isChecksumTrusted } from '../../packet/transport-checksum.ts';
import { PacketView } from '../../packet/view.ts';
import { VNET_GSO_TYPE } from '../../packet/virtio.ts';
import { isAddressAt } from '../ip/address-at.ts';
import { DatagramQueue } from '../ip/datagram-queue.ts';
import { DatagramWriter, type OutgoingDatagram } from '../ip/datagram-writer.ts';
import type { Identifications } from '../ip/identifications.ts';
import type { PathMtus } from '../ip/path-mtu.ts';
import { SiteRate } from '../site/site-rate.ts';
import { type EchoOutcome, type EchoRequest, EchoRequests } from './echo-requests.ts';
import { type IcmpError, IcmpErrorReader } from './icmp-error.ts';

export interface IcmpEndpointOptions {
  /** Returns the time in ms, monotonic. */
  readonly now: () => number;
  /** Returns an unsigned 32-bit integer that nobody can predict. */
  readonly random: () => number;
  readonly identifications: Identifications;
  readonly pathMtus: PathMtus;
  /** The longest packet that the device takes, in bytes. */
  readonly mtu: number;
  /** The stack's own address of this family, which alone answers echo requests. */
  readonly localAddress: (family: Family) => IpAddress | undefined;
  /**
   * Gets errors that quote a TCP segment. Returns whether the segment belongs to a connection and its sequence number
   * is outstanding ([RFC 5927 section 4](https://www.rfc-editor.org/rfc/rfc5927#section-4)).
   */
  readonly onTcpError: (error: IcmpError) => boolean;
  /** Gets errors that quote a datagram. Returns whether a socket can have sent it. */
  readonly onUdpError: (error: IcmpError) => boolean;
}

/** What cannot be reached: the kinds of errors that a stack sends. */
export type Unreachable = 'port' | 'protocol' | 'host' | 'network' | 'prohibited';

/** Cumulative. */
export interface IcmpCounters {
  /** Packets that were dropped: the checksum is wrong, or they are super-packets. */
  malformed: number;
  /** Echo requests that were answered. */
  echoesAnswered: number;
  /** Echo requests to other addresses than the stack's own, which are dropped: a service does not answer by itself. */
  echoesNotOwn: number;
  /** Replies that end a request of this stack. */
  repliesReceived: number;
  /** Replies that fit no request. */
  repliesUnknown: number;
  /** Errors that a protocol accepted. */
  errorsReceived: number;
  /** Errors whose quote is of no packet of this stack. */
  errorsIgnored: number;
  errorsSent: number;
  /** Echo requests and packets that got no answer because of the rate limit. */
  limited: number;
  /** Messages that were dropped: the queue was full, they waited too long, or the device refused them. */
  sendDrops: number;
}

export class IcmpEndpoint {
  readonly counters: IcmpCounters = newCounters();
  /** Is called when something can be sent, once until `read` returns 0. */
  onReady: () => void = () => {};
  /** Returns the site of a host, by which the rates are shared; undefined if none is known. Default: none is known. */
  siteOf: (host: IpAddress) => string | undefined = () => undefined;

  readonly #options: IcmpEndpointOptions;
  readonly #view: PacketView = new PacketView();
  readonly #reader: IcmpErrorReader = new IcmpErrorReader();
  readonly #requests: EchoRequests;
  readonly #writer: DatagramWriter;
  readonly #queue: DatagramQueue<Message> = new DatagramQueue();
  /** Errors and echo replies are limited apart, so that no flood of one kind silences the other. */
  readonly #errorLimit: SiteRate = new SiteRate(MAX_PER_SECOND);
  readonly #echoLimit: SiteRate = new SiteRate(MAX_PER_SECOND);
  #isReady = false;
  #isClosed = false;

  constructor(options: IcmpEndpointOptions) {
    const { mtu, pathMtus, identifications, random } = options;
    this.#options = options;
    this.#requests = new EchoRequests(random);
    this.#writer = new DatagramWriter({ mtu, offload: false, pathMtus, identifications });
  }

  /** How many echo requests wait for their replies. */
  get waiting(): number {
    return this.#requests.size;
  }

  /**
   * Takes a packet to an address of this stack, whole, whose kind is an echo or an error.
   *
   * @param vnet the offset of its virtio-net header; -1 if it has none
   */
  receive(buffer: Uint8Array, vnet: number, header: PacketHeader): void {
    const view = this.#view.of(buffer);
    if (!isIntact(view, vnet, header)) {
      this.counters.malformed++;
    } else if (header.kind === PacketKind.EchoRequest) {
      this.#answer(buffer, view, header);
    } else if (header.kind === PacketKind.EchoReply) {
      this.#onReply(buffer, view, header);
    } else if (header.kind === PacketKind.IcmpError) {
      this.#onError(buffer, view, header);
    }
  }

  /**
   * Answers a packet that nobody takes: a datagram to a closed port, or a protocol that the stack does not have. The
   * packet is quoted as far as the length of an error allows. Its source must be one host, as RFC 1122 section 3.2.2
   * demands; the device lets no others through.
   */
  unreachable(buffer: Uint8Array, header: PacketHeader, what: 'port' | 'protocol'): void {
    const { family, start, end, transport, source } = header;
    const isPlain = transport - start === IPV6_HEADER;
    if (family === 6 && what === 'protocol' && !isPlain) return;
    const to = IpAddress.fromBytes(family, buffer, source);
    if (!this.#takes(this.#errorLimit, to)) return;
    const longest = family === 4 ? MAX_QUOTE_V4 : MAX_QUOTE_V6;
    const from = IpAddress.fromBytes(family, buffer, source + (family === 4 ? 4 : 16));
    const quote = new Uint8Array(buffer.subarray(start, Math.min(end, start + longest)));
    this.#sendError(what, from, to, quote);
  }

  /**
   * Sends an error about a packet that was taken, but could not go on: a service behind the stack has refused it.
   *
   * @param from the destination of the packet, which the error then comes from
   * @param to its source, which must be one host
   * @param quote the packet from its IP header on (`icmp-quote.ts`), which must not change; what is longer than an
   *   error may be is left out
   */
  report(what: Unreachable, from: IpAddress, to: IpAddress, quote: Uint8Array): void {
    if (!this.#takes(this.#errorLimit, to)) return;
    const longest = to.family === 4 ? MAX_QUOTE_V4 : MAX_QUOTE_V6;
    this.#sendError(what, from, to, quote.subarray(0, longest));
  }

  /**
   * Sends an echo request.
   *
   * @returns undefined if too many requests wait, the queue is full, or the endpoint is closed
   */
  request(
    local: IpAddress,
    remote: IpAddress,
    payload: Uint8Array,
    onOutcome: (outcome: EchoOutcome) => void
  ): EchoRequest | undefined {
    if (this.#isClosed || !this.#queue.fits(payload.length)) return undefined;
    const request = this.#requests.add(remote, payload, onOutcome);
    if (request === undefined) return undefined;
    const isIpv4 = remote.family === 4;
    const protocol = isIpv4 ? Protocol.Icmp : Protocol.Icmpv6;
    const first = (isIpv4 ? ECHO_V4 : ECHO_V6) << 24;
    const second = (request.identifier << 16) | FIRST_SEQUENCE;
    this.#push({ protocol, local, remote, first, second, payload, atMs: this.#options.now() });
    return request;
  }

  /** Forgets an echo request, whose reply is not waited for. */
  forget(request: EchoRequest): void {
    this.#requests.remove(request);
  }

  /** Writes the next frame that may be sent to `buffer` at `at`, as `PacketDevice.read` does. Returns its length, or 0. */
  read(buffer: Buffer, at: number): number {
    while (!this.#writer.isActive) {
      const message = this.#queue.shift();
      if (message === undefined) {
        this.#isReady = false;
        return 0;
      }
      if (this.#options.now() - message.atMs <= MAX_WAIT_MS) this.#writer.begin(message);
      else this.counters.sendDrops++;
    }
    return this.#writer.next(buffer, at);
  }

  /** The device did not take the frame that was read last: the rest of its datagram would be of no use. */
  refused(): void {
    this.#writer.cancel();
    this.counters.sendDrops++;
  }

  /** Ends all echo requests. None can be sent after that. */
  close(): void {
    this.#isClosed = true;
    this.#requests.close();
    this.#queue.clear();
    this.#writer.cancel();
  }

  #answer(buffer: Uint8Array, view: DataView, header: PacketHeader): void {
    const { family, source, transport, end } = header;
    const own = this.#options.localAddress(family);
    const at = source + (family === 4 ? 4 : 16);
    if (own === undefined || !isAddressAt(view, at, own)) {
      this.counters.echoesNotOwn++;
      return;
    }
    const remote = IpAddress.fromBytes(family, buffer, source);
    if (!this.#takes(this.#echoLimit, remote)) return;
    const payload = new Uint8Array(buffer.subarray(transport + ICMP_HEADER, end));
    const type = family === 4 ? ECHO_REPLY_V4 : ECHO_REPLY_V6;
    const rest = view.getInt32(transport + ICMP_IDENTIFIER);
    if (this.#send(own, remote, type << 24, rest, payload)) this.counters.echoesAnswered++;
  }

  #onReply(buffer: Uint8Array, view: DataView, header: PacketHeader): void {
    const { source, transport, end } = header;
    const request = this.#requests.get(view.getUint16(transport + ICMP_IDENTIFIER));
    const isOurs =
      request !== undefined &&
      request.remote.family === header.family &&
      isAddressAt(view, source, request.remote) &&
      view.getUint16(transport + ICMP_IDENTIFIER + 2) === FIRST_SEQUENCE &&
      Buffer.compare(buffer.subarray(transport + ICMP_HEADER, end), request.payload) === 0;
    if (!isOurs) {
      this.counters.repliesUnknown++;
      return;
    }
    this.counters.repliesReceived++;
    this.#requests.settle(request, undefined);
  }

  #onError(buffer: Uint8Array, view: DataView, header: PacketHeader): void {
    const error = this.#reader.read(buffer, view, header);
    if (error === undefined || !this.#accept(error)) {
      this.counters.errorsIgnored++;
      return;
    }
    this.counters.errorsReceived++;
    if (error.kind === 'too-big') this.#options.pathMtus.learn(error.remote, error.mtu);
  }

  #accept(error: IcmpError): boolean {
    if (error.protocol === 'tcp') return this.#options.onTcpError(error);
    if (error.protocol === 'udp') return this.#options.onUdpError(error);
    const request = this.#requests.get(error.sequence);
    if (request === undefined || !request.remote.equals(error.remote)) return false;
    this.#requests.settle(request, error.kind);
    return true;
  }

  #takes(limit: SiteRate, to: IpAddress): boolean {
    if (limit.take(this.siteOf(to), this.#options.now())) return true;
    this.counters.limited++;
    return false;
  }

  #sendError(what: Unreachable, from: IpAddress, to: IpAddress, quote: Uint8Array): void {
    const isIpv4 = to.family === 4;
    const first = (isIpv4 ? ERRORS_V4 : ERRORS_V6)[what] << 16;
    const second = !isIpv4 && what === 'protocol' ? IPV6_NEXT_HEADER : 0;
    if (this.#send(from, to, first, second, quote)) this.counters.errorsSent++;
  }

  /** Queues a message. Returns whether there is room. */
  #send(
    local: IpAddress,
    remote: IpAddress,
    first: number,
    second: number,
    payload: Uint8Array
  ): boolean {
    const protocol = remote.family === 4 ? Protocol.Icmp : Protocol.Icmpv6;
    const atMs = this.#options.now();
    return this.#push({ protocol, local, remote, first, second, payload, atMs });
  }

  #push(message: Message): boolean {
    if (!this.#queue.push(message)) {
      this.counters.sendDrops++;
      return false;
    }
    if (!this.#isReady) {
      this.#isReady = true;
      this.onReady();
    }
    return true;
  }
}

interface Message extends OutgoingDatagram {
  readonly atMs: number;
}

function isIntact(view: DataView, vnet: number, header: PacketHeader): boolean {
  if (vnet >= 0 && view.getUint8(vnet + VNET_GSO_TYPE) !== 0) return false;
  return isChecksumTrusted(view, vnet) || hasRightChecksum(view, header);
}

function newCounters(): IcmpCounters {
  return {
    malformed: 0,
    echoesAnswered: 0,
    echoesNotOwn: 0,
    repliesReceived: 0,
    repliesUnknown: 0,
    errorsReceived: 0,
    errorsIgnored: 0,
    errorsSent: 0,
    limited: 0,
    sendDrops: 0,
  };
}

/** Types and codes (RFC 792; RFC 1812 section 5.2.7.1), as the first 16 bits of an error. */
const ERRORS_V4: Readonly<Record<Unreachable, number>> = {
  network: 0x0300,
  host: 0x0301,
  protocol: 0x0302,
  port: 0x0303,
  prohibited: 0x030d,
};
/** Types and codes (RFC 4443 sections 3.1 and 3.4). */
const ERRORS_V6: Readonly<Record<Unreachable, number>> = {
  network: 0x0100,
  prohibited: 0x0101,
  host: 0x0103,
  port: 0x0104,
  protocol: 0x0401,
};
const ECHO_V4 = 8;
const ECHO_V6 = 128;
const ECHO_REPLY_V4 = 0;
const ECHO_REPLY_V6 = 129;
/** The sequence number of every request: each has an identifier of its own. */
const FIRST_SEQUENCE = 1;
const MAX_PER_SECOND = 100;
/** Answers that waited longer, while the tunnel was down, would tell of the past. */
const MAX_WAIT_MS = 5000;
/** An error has at most 576 bytes ([RFC 1812 section 4.3.2.3](https://www.rfc-editor.org/rfc/rfc1812#section-4.3.2.3)). */
const MAX_QUOTE_V4: number = 576 - IPV4_MIN_HEADER - ICMP_HEADER;
/** An error has at most 1,280 bytes (RFC 4443 section 2.4). */
const MAX_QUOTE_V6: number = 1280 - IPV6_HEADER - ICMP_HEADER;
