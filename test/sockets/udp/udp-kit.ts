/**
 * A UDP endpoint with what belongs to it, in simulated time, and packets for it.
 * @module
 */
import { IpAddress } from '../../../src/base/address.ts';
import { Parse } from '../../../src/packet/fields.ts';
import { PacketHeader } from '../../../src/packet/header.ts';
import { Identifications } from '../../../src/sockets/ip/identifications.ts';
import { PathMtus } from '../../../src/sockets/ip/path-mtu.ts';
import { UdpEndpoint, type UdpVerdict } from '../../../src/sockets/udp/udp.ts';
import type { UdpOwner, UdpSocket } from '../../../src/sockets/udp/udp-socket.ts';
import { randomWord } from '../../../src/tcp/ports.ts';
import { type Ends, isIpv6, type UdpFields, udpPacket } from '../../support/packets.ts';
import { Random } from '../../support/random.ts';
import { framed, VNET, type VnetHeader } from '../../support/vnet.ts';

/** The addresses of the stack and of a peer, by IP version. */
export const OWN = { 4: '10.0.0.1', 6: 'fd00::1' } as const;
export const PEER = { 4: '10.0.0.2', 6: 'fd00::2' } as const;

export function address(text: string): IpAddress {
  return IpAddress.parse(text);
}

export interface KitOptions {
  readonly seed?: number;
  readonly mtu?: number;
  readonly offload?: boolean;
  readonly queueBytes?: number;
}

export class UdpKit {
  nowMs = 1000;
  readonly random: Random;
  readonly word: () => number;
  readonly identifications: Identifications;
  readonly pathMtus: PathMtus;
  readonly udp: UdpEndpoint;
  readonly #header = new PacketHeader();
  readonly #buffer: Buffer = Buffer.alloc(70_000);

  constructor({ seed = 1, mtu = 65_515, offload = true, queueBytes }: KitOptions = {}) {
    const now = (): number => this.nowMs;
    this.random = new Random(seed);
    this.word = () => randomWord((count) => this.random.bytes(count));
    this.identifications = new Identifications(this.word);
    this.pathMtus = new PathMtus(now);
    this.udp = new UdpEndpoint({
      now,
      random: this.word,
      identifications: this.identifications,
      pathMtus: this.pathMtus,
      mtu,
      offload,
      localAddress: (family) => address(OWN[family]),
      ...(queueBytes !== undefined && { queueBytes }),
    });
  }

  /** Binds a socket to all addresses. */
  bind(family: 4 | 6, port: number, owner: UdpOwner = IGNORING): UdpSocket {
    const socket = this.udp.bind(family, undefined, port, owner);
    if (typeof socket === 'string') throw new Error(socket);
    return socket;
  }

  /** Hands a packet to the endpoint, as a device gets it: somewhere in a larger buffer. */
  receive(packet: Uint8Array, vnet: VnetHeader = {}): UdpVerdict {
    const frame = framed(packet, vnet);
    this.#buffer.set(frame, 7);
    const view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset, this.#buffer.length);
    const outcome = this.#header.parse(view, 7 + VNET, 7 + frame.length);
    if (outcome !== Parse.Ok) throw new Error(`the packet is not valid: ${outcome}`);
    return this.udp.receive(this.#buffer, 7, this.#header);
  }

  /** A datagram of the peer. */
  fromPeer(family: 4 | 6, fields: Partial<UdpFields> = {}, vnet: VnetHeader = {}): UdpVerdict {
    const ends = { source: PEER[family], destination: OWN[family] };
    return this.receive(
      udpPacket(ends, { sourcePort: 2000, destinationPort: 1000, ...fields }),
      vnet
    );
  }

  /** The next frame, undefined if there is none. */
  read(): Buffer | undefined {
    return readFrame(this.udp);
  }

  /** All frames that may be sent. */
  readAll(): Buffer[] {
    const frames: Buffer[] = [];
    for (let frame = this.read(); frame !== undefined; frame = this.read()) frames.push(frame);
    return frames;
  }
}

/** Reads behind bytes of another frame, so that each byte of the frame must be written. */
export function readFrame(from: { read(buffer: Buffer, at: number): number }): Buffer | undefined {
  const buffer = Buffer.alloc(70_000, 0xa5);
  const length = from.read(buffer, 3);
  if (!buffer.subarray(0, 3).equals(Buffer.alloc(3, 0xa5))) throw new Error('wrote in front');
  return length === 0 ? undefined : buffer.subarray(3, 3 + length);
}

/** The packet of a frame. */
export function packetOf(frame: Buffer): Buffer {
  return frame.subarray(VNET);
}

/** Fragments of a packet are put together byte by byte; undefined if they do not fit or a byte is missing. */
export function naiveReassembly(packets: readonly Buffer[]): Buffer | undefined {
  const whole = Buffer.alloc(65_536);
  const isThere = new Uint8Array(65_536);
  let total = -1;
  for (const packet of packets) {
    const { from, isMore, payload } = partOf(packet);
    for (const [i, byte] of payload.entries()) {
      if (isThere[from + i] === 1) return undefined;
      isThere[from + i] = 1;
      whole[from + i] = byte;
    }
    if (!isMore) total = from + payload.length;
  }
  if (total < 0 || isThere.subarray(0, total).includes(0)) return undefined;
  return isThere.subarray(total).includes(1) ? undefined : whole.subarray(0, total);
}

/** What a fragment, with no other extension header, carries. */
export function partOf(packet: Buffer): {
  readonly id: number;
  readonly from: number;
  readonly isMore: boolean;
  readonly payload: Buffer;
} {
  if (packet[0]! >> 4 === 4) {
    const word = packet.readUInt16BE(6);
    return {
      id: packet.readUInt16BE(4),
      from: (word & 0x1fff) * 8,
      isMore: (word & 0x2000) !== 0,
      payload: packet.subarray(20),
    };
  }
  if (packet[6] !== 44) return { id: 0, from: 0, isMore: false, payload: packet.subarray(40) };
  const word = packet.readUInt16BE(42);
  return {
    id: packet.readUInt32BE(44),
    from: word & 0xfff8,
    isMore: (word & 1) !== 0,
    payload: packet.subarray(48),
  };
}

/** The IP version of two ends. */
export function familyOf(ends: Ends): 4 | 6 {
  return isIpv6(ends) ? 6 : 4;
}

const IGNORING: UdpOwner = { onUdpEvents: () => {} };
