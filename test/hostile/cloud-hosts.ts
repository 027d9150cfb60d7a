/**
 * The hosts of the cloud, behind the cloud gateway's device: they answer every UDP packet that comes to a
 * service, count what arrives, and send as much as they can on command.
 * @module
 */

import { SocketDevice } from '../../src/device/index.ts';
import { readDatagram, turnBack, writeDatagram } from '../support/datagrams.ts';
import { VNET } from '../support/vnet.ts';
import { BUS } from './plan.ts';

export class CloudHosts {
  readonly #device: SocketDevice;
  readonly #buffer: Buffer = Buffer.alloc(VNET + 65_535);
  /** Packets by their source; packets other than UDP count as `other`. */
  #seen = new Map<string, number>();
  /** Answers that the device did not accept yet. */
  #waiting: Buffer[] = [];

  private constructor(device: SocketDevice) {
    this.#device = device;
    device.start(() => this.#read());
  }

  static async open(path: string): Promise<CloudHosts> {
    return new CloudHosts(await SocketDevice.open({ type: 'unix', path, role: 'connect' }));
  }

  /** Returns the packets by source since the last call. */
  takeSeen(): Record<string, number> {
    const seen = Object.fromEntries(this.#seen);
    this.#seen = new Map();
    return seen;
  }

  /** Sends datagrams to an address, as fast as the device accepts them. Returns how many. */
  async flood(destination: string, destinationPort: number, count: number): Promise<number> {
    const packet = writeDatagram({
      source: BUS.address,
      sourcePort: BUS.port,
      destination,
      destinationPort,
      payload: Buffer.alloc(FLOOD_BYTES),
    });
    let sent = 0;
    while (sent < count) {
      for (let i = 0; i < FLOOD_BATCH && sent < count; i++) {
        if (this.#waiting.length > 0 || !this.#device.write(packet, 0, packet.length)) break;
        sent++;
      }
      await new Promise(setImmediate);
      this.#flush();
    }
    return sent;
  }

  #read(): void {
    for (let i = 0; i < READ_BATCH; i++) {
      const length = this.#device.read(this.#buffer, 0);
      if (length === 0) break;
      const datagram = readDatagram(this.#buffer, 0, length);
      const source = datagram?.source ?? 'other';
      this.#seen.set(source, (this.#seen.get(source) ?? 0) + 1);
      if (datagram === undefined) continue;
      const answer = Buffer.from(this.#buffer.subarray(0, length));
      turnBack(answer, 0);
      this.#waiting.push(answer);
    }
    this.#flush();
  }

  #flush(): void {
    while (this.#waiting.length > 0) {
      const [first] = this.#waiting;
      if (!this.#device.write(first!, 0, first!.length)) {
        setImmediate(() => this.#flush());
        return;
      }
      this.#waiting.shift();
    }
  }
}

const READ_BATCH = 64;
const FLOOD_BATCH = 32;
const FLOOD_BYTES = 1400;
