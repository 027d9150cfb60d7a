/**
 * A frame that can be changed in place: a virtio-net header, an IP header without options or extensions, and TCP.
 * @module
 */
import { NEEDS_CSUM, VNET } from '../../support/vnet.ts';

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const ACK = 0x10;
export const URG = 0x20;

export class Frame {
  readonly bytes: Uint8Array = new Uint8Array(VNET + 70_000);
  length = 0;
  readonly #view: DataView = new DataView(this.bytes.buffer);

  /** Becomes a copy of a frame that an endpoint has sent. */
  take(frame: Uint8Array): void {
    this.bytes.set(frame);
    this.length = frame.length;
  }

  get isIpv4(): boolean {
    return this.bytes[VNET]! >> 4 === 4;
  }

  /** Where TCP begins. */
  get tcp(): number {
    return VNET + (this.isIpv4 ? 20 : 40);
  }

  /** Where the payload begins. */
  get payload(): number {
    return this.tcp + (this.bytes[this.tcp + 12]! >> 4) * 4;
  }

  get payloadLength(): number {
    return this.length - this.payload;
  }

  /** SEG.LEN. */
  get segmentLength(): number {
    return this.payloadLength + (this.has(SYN) ? 1 : 0) + (this.has(FIN) ? 1 : 0);
  }

  has(flag: number): boolean {
    return (this.bytes[this.tcp + 13]! & flag) !== 0;
  }

  get flags(): number {
    return this.bytes[this.tcp + 13]!;
  }

  set flags(flags: number) {
    this.bytes[this.tcp + 13] = flags;
  }

  get sequence(): number {
    return this.#view.getInt32(this.tcp + 4);
  }

  set sequence(sequence: number) {
    this.#view.setInt32(this.tcp + 4, sequence);
  }

  get acknowledgement(): number {
    return this.#view.getInt32(this.tcp + 8);
  }

  set acknowledgement(acknowledgement: number) {
    this.#view.setInt32(this.tcp + 8, acknowledgement);
  }

  set window(window: number) {
    this.#view.setUint16(this.tcp + 14, window);
  }

  /** 0 is the source port, 1 the destination port. */
  setPort(index: 0 | 1, port: number): void {
    this.#view.setUint16(this.tcp + 2 * index, port);
  }

  /** Changes the last two bytes of the source address. */
  setSourceEnd(value: number): void {
    this.#view.setUint16(VNET + (this.isIpv4 ? 14 : 22), value);
  }

  /** Makes the frame longer or shorter at its end, and the IP header right for it. */
  resize(length: number): void {
    if (length > this.length) this.bytes.fill(0x5a, this.length, length);
    this.length = length;
    this.setIpLength(length - VNET);
  }

  /** Sets the length of the packet that the IP header claims. */
  setIpLength(packetLength: number): void {
    if (this.isIpv4) this.#view.setUint16(VNET + 2, packetLength & 0xffff);
    else this.#view.setUint16(VNET + 4, (packetLength - 40) & 0xffff);
  }

  /** Makes room for options of `length` bytes, a multiple of 4 and at most 40, and moves the payload. */
  setOptionsLength(length: number): void {
    const from = this.payload;
    const to = this.tcp + 20 + length;
    this.bytes.copyWithin(to, from, this.length);
    this.bytes[this.tcp + 12] = ((20 + length) / 4) << 4;
    this.resize(this.length + to - from);
  }

  /** A checksum that is left to the receiver's device: the header has the sum of the pseudo-header. */
  sealPartially(): void {
    this.#sealIp();
    const { bytes } = this;
    const view = this.#view;
    bytes[0] = NEEDS_CSUM;
    view.setUint16(6, this.tcp - VNET, true);
    view.setUint16(8, 16, true);
    view.setUint16(this.tcp + 16, fold(this.#pseudoSum()));
  }

  /** A complete checksum; `error` is added to it. */
  sealCompletely(error: number = 0): void {
    this.#sealIp();
    const view = this.#view;
    this.bytes[0] = 0;
    view.setUint16(6, 0);
    view.setUint16(8, 0);
    view.setUint16(this.tcp + 16, 0);
    const sum = fold(this.#pseudoSum() + sumOf(this.bytes, this.tcp, this.length));
    view.setUint16(this.tcp + 16, ((~sum & 0xffff) ^ error) & 0xffff);
  }

  #sealIp(): void {
    if (!this.isIpv4) return;
    const view = this.#view;
    view.setUint16(VNET + 10, 0);
    view.setUint16(VNET + 10, ~fold(sumOf(this.bytes, VNET, VNET + 20)) & 0xffff);
  }

  #pseudoSum(): number {
    const [from, to] = this.isIpv4 ? [VNET + 12, VNET + 20] : [VNET + 8, VNET + 40];
    return 6 + (this.length - this.tcp) + sumOf(this.bytes, from, to);
  }
}

function sumOf(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to; at += 2) {
    sum += bytes[at]! * 256 + (at + 1 < to ? bytes[at + 1]! : 0);
  }
  return sum;
}

function fold(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}
