/**
 * Numbered UDP packets at a steady pace, each way between a host of a site and a service of the cloud.
 * @module
 */
import { MemoryDevice } from '../../src/device/index.ts';
import {
  MAX_PACKET_LENGTH,
  readUdpFrame,
  type UdpDatagram,
  udpFrame,
  VNET_HEADER_LENGTH,
} from '../../src/packet/index.ts';

export interface Ends {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

/** The network behind a gateway's device. */
export class Network {
  /** The gateway's end. */
  readonly device: MemoryDevice;
  readonly #far: MemoryDevice;
  readonly #buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  readonly #onPacket: (from: UdpDatagram, number: number) => void;

  /** @param onPacket called with each packet that arrives, and the number in it */
  constructor(onPacket: (datagram: UdpDatagram, number: number) => void) {
    [this.device, this.#far] = MemoryDevice.pair({ queueLength: QUEUE_LENGTH });
    this.#onPacket = onPacket;
    this.#far.start(() => this.drain());
  }

  /** Reads what has come so far. */
  drain(): void {
    const buffer = this.#buffer;
    for (let n = this.#far.read(buffer, 0); n > 0; n = this.#far.read(buffer, 0)) {
      const datagram = readUdpFrame(buffer.subarray(0, n));
      if (datagram === undefined) continue;
      this.#onPacket(datagram, Buffer.from(datagram.payload).readUInt32BE(0));
    }
  }

  send(ends: Ends, number: number): void {
    const payload = Buffer.alloc(PAYLOAD_BYTES);
    payload.writeUInt32BE(number, 0);
    const frame = udpFrame({ ...ends, payload });
    this.#far.write(frame, 0, frame.length);
  }
}

/** Calls `send` with the number of each packet that is due. */
export class Pace {
  /** The number of the packet that is sent next. */
  next = 0;
  readonly #timer: NodeJS.Timeout;

  constructor(packetsPerSecond: number, send: (number: number) => void) {
    let lastMs = performance.now();
    let due = 0;
    this.#timer = setInterval(() => {
      const nowMs = performance.now();
      due = Math.min(due + ((nowMs - lastMs) / 1000) * packetsPerSecond, MOST_AT_ONCE);
      lastMs = nowMs;
      for (; due >= 1; due--) send(this.next++);
    }, 1);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

const PAYLOAD_BYTES = 64;
const QUEUE_LENGTH = 4096;
/** After a pause this many packets follow each other, and no more. */
const MOST_AT_ONCE = 200;
