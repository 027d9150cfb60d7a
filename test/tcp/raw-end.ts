/**
 * An endpoint in simulated time whose peers are the test's own segments, right or wrong ones.
 */
import { IpAddress } from '../../src/base/address.ts';
import { TcpEndpoint, type TcpEndpointOptions, type TcpLimits } from '../../src/tcp/index.ts';
import { ACK, SYN, tcpPacket } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { framed, VNET } from '../support/vnet.ts';

/** A segment that the endpoint has sent. */
export interface Sent {
  readonly to: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly flags: number;
  readonly window: number;
  readonly optionsLength: number;
  readonly payload: Buffer;
}

export interface Segment {
  readonly sequence?: number;
  readonly acknowledgment?: number;
  readonly flags?: number;
  readonly window?: number;
  readonly payload?: Uint8Array;
  readonly tcpOptions?: Uint8Array;
}

export const OWN = '10.0.0.1';

export class RawEnd {
  now = 1_000;
  readonly endpoint: TcpEndpoint;
  readonly #buffer = Buffer.alloc(70_000);

  constructor(limits: Partial<TcpLimits> = {}, options: Partial<TcpEndpointOptions> = {}) {
    const random = new Random(1);
    this.endpoint = new TcpEndpoint({
      clock: { monotonicMs: () => this.now },
      random: (length) => random.bytes(length),
      limits,
      ...options,
    });
  }

  /** Lets time pass. What is sent meanwhile is lost. */
  pass(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      this.endpoint.takeEvents();
      this.take();
      const { deadline } = this.endpoint;
      if (deadline > end) break;
      this.now = Math.max(this.now, deadline);
      this.endpoint.expire();
    }
    this.now = end;
    this.endpoint.advance();
  }

  /** Hands a segment to the endpoint. */
  receive(source: string, sourcePort: number, destinationPort: number, segment: Segment): void {
    const packet = tcpPacket(
      { source, destination: OWN },
      { sourcePort, destinationPort, ...segment }
    );
    const frame = Buffer.from(framed(packet));
    this.endpoint.receive(frame, 0, frame.length);
  }

  /** Takes all that the endpoint has to send. */
  take(): Sent[] {
    const sent: Sent[] = [];
    for (;;) {
      const length = this.endpoint.read(this.#buffer, 0);
      if (length === 0) return sent;
      sent.push(parse(Buffer.from(this.#buffer.subarray(VNET, length))));
    }
  }

  /** Opens a connection from a peer to a listening port of the endpoint. */
  peer(source: string, port: number, to: number, options: PeerOptions = {}): RawPeer {
    const { mss = 1_460, window = 65_535, scale = 7 } = options;
    const iss = 1_000_000;
    const scaleOption = scale < 0 ? [1, 1, 1, 1] : [1, 3, 3, scale];
    const tcpOptions = Uint8Array.from([2, 4, mss >> 8, mss & 255, 4, 2, ...scaleOption]);
    this.receive(source, port, to, { sequence: iss, flags: SYN, window, tcpOptions });
    const [synAck] = this.take();
    if (synAck === undefined) throw new Error('the SYN is not answered');
    const peer = new RawPeer(
      this,
      source,
      port,
      to,
      iss + 1,
      synAck.sequence + 1,
      window >> Math.max(scale, 0)
    );
    peer.offered = synAck.window;
    peer.send();
    this.endpoint.takeEvents();
    return peer;
  }
}

export interface PeerOptions {
  readonly mss?: number;
  readonly window?: number;
  /** -1 without the option. */
  readonly scale?: number;
}

/** A peer that does what the test says, and no more. */
export class RawPeer {
  readonly end: RawEnd;
  readonly address: string;
  readonly port: number;
  readonly to: number;
  /** Its next sequence number, and the next one that it expects. */
  next: number;
  expected: number;
  window: number;
  /** The window that the endpoint's SYN-ACK has offered, in bytes. */
  offered = 0;

  constructor(
    end: RawEnd,
    address: string,
    port: number,
    to: number,
    next: number,
    expected: number,
    window: number
  ) {
    this.end = end;
    this.address = address;
    this.port = port;
    this.to = to;
    this.next = next;
    this.expected = expected;
    this.window = window;
  }

  /** Sends a segment at its next number, or `offset` bytes behind it. */
  send(payload: Uint8Array = new Uint8Array(0), offset = 0, segment: Segment = {}): void {
    this.end.receive(this.address, this.port, this.to, {
      sequence: this.next + offset,
      acknowledgment: this.expected,
      flags: ACK,
      window: this.window,
      payload,
      ...segment,
    });
  }

  /** Acknowledges what was sent to it. Returns how many bytes that were. */
  acknowledge(sent: readonly Sent[]): number {
    let bytes = 0;
    for (const { to, destinationPort, sequence, payload } of sent) {
      if (to !== this.address || destinationPort !== this.port) continue;
      if (sequence !== this.expected) continue;
      bytes += payload.length;
      this.expected += payload.length;
    }
    if (bytes > 0) this.send();
    return bytes;
  }
}

function parse(packet: Buffer): Sent {
  const tcp = 20;
  return {
    to: IpAddress.fromBytes(4, packet, 16).toString(),
    sourcePort: packet.readUInt16BE(tcp),
    destinationPort: packet.readUInt16BE(tcp + 2),
    sequence: packet.readUInt32BE(tcp + 4),
    acknowledgement: packet.readUInt32BE(tcp + 8),
    flags: packet[tcp + 13]!,
    window: packet.readUInt16BE(tcp + 14),
    optionsLength: (packet[tcp + 12]! >> 4) * 4 - 20,
    payload: packet.subarray(tcp + (packet[tcp + 12]! >> 4) * 4),
  };
}
