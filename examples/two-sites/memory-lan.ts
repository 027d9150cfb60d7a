/**
 * A LAN in memory, behind the packet device of a gateway. Its hosts support ICMP echo and UDP only, because there
 * is no TCP without a kernel.
 * @module
 */
import { IpAddress, type PacketDevice } from 'virtual-presence';
import {
  fold,
  MAX_PACKET_LENGTH,
  Protocol,
  sumBytes,
  VNET_HEADER_LENGTH,
} from 'virtual-presence/packet';

/** Returns the answer to a datagram, or undefined for no answer. */
export type UdpService = (payload: Buffer, client: string) => Buffer | undefined;

interface Address {
  readonly host: string;
  readonly port: number;
}

export class MemoryLan {
  readonly #device: PacketDevice;
  readonly #services = new Map<string, UdpService>();
  readonly #waiting = new Map<string, (payload: Buffer) => void>();
  readonly #frame: Buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  #nextPort = 40_000;

  /** @param device the other end of the gateway's device. */
  constructor(device: PacketDevice) {
    this.#device = device;
    device.start(() => {
      for (let length = this.#read(); length > 0; length = this.#read()) {
        this.#take(Buffer.from(this.#frame.subarray(VNET_HEADER_LENGTH, length)));
      }
    });
  }

  serve(address: string, port: number, service: UdpService): void {
    this.#services.set(`${address}:${port}`, service);
  }

  /** Sends a datagram from the host `from`. Resolves to the answer, or undefined after `timeoutMs`. */
  request(
    from: string,
    to: Address,
    payload: string,
    timeoutMs = 10_000
  ): Promise<Buffer | undefined> {
    const port = this.#nextPort++;
    if (this.#nextPort > 60_000) this.#nextPort = 40_000;
    const answer = this.#answerTo(`udp ${from}:${port} ${to.host}:${to.port}`, timeoutMs);
    this.#sendUdp({ host: from, port }, to, Buffer.from(payload));
    return answer;
  }

  /** Resolves to the round-trip time in ms, or undefined after `timeoutMs`. */
  async ping(from: string, to: string, timeoutMs = 10_000): Promise<number | undefined> {
    const start = performance.now();
    const answer = this.#answerTo(`echo ${from} ${to}`, timeoutMs);
    this.#send(from, to, Protocol.Icmp, echo(ECHO_REQUEST, Buffer.from('virtual presence')));
    return (await answer) === undefined ? undefined : performance.now() - start;
  }

  #answerTo(key: string, timeoutMs: number): Promise<Buffer | undefined> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(key);
        resolve(undefined);
      }, timeoutMs);
      this.#waiting.set(key, (payload) => {
        clearTimeout(timer);
        this.#waiting.delete(key);
        resolve(payload);
      });
    });
  }

  #read(): number {
    return this.#device.read(this.#frame, 0);
  }

  #take(packet: Buffer): void {
    const source = IpAddress.fromBytes(4, packet, 12).toString();
    const destination = IpAddress.fromBytes(4, packet, 16).toString();
    const transport = packet.subarray((packet[0]! & 15) * 4);
    if (fold(sumBytes(packet, 0, 20, 0)) !== 0xffff) throw new Error('wrong IPv4 header checksum');
    if (packet[9] === Protocol.Icmp) {
      if (fold(sumBytes(transport, 0, transport.length, 0)) !== 0xffff) {
        throw new Error('wrong ICMP checksum');
      }
      if (transport[0] === ECHO_REQUEST) {
        this.#send(destination, source, Protocol.Icmp, echo(ECHO_REPLY, transport.subarray(8)));
      } else {
        this.#waiting.get(`echo ${destination} ${source}`)?.(transport);
      }
      return;
    }
    if (udpSum(source, destination, transport) !== 0xffff) throw new Error('wrong UDP checksum');
    const from = { host: source, port: transport.readUInt16BE(0) };
    const to = { host: destination, port: transport.readUInt16BE(2) };
    const payload = transport.subarray(8);
    const waiting = this.#waiting.get(`udp ${to.host}:${to.port} ${from.host}:${from.port}`);
    if (waiting !== undefined) {
      waiting(payload);
      return;
    }
    const answer = this.#services.get(`${to.host}:${to.port}`)?.(payload, source);
    if (answer !== undefined) this.#sendUdp(to, from, answer);
  }

  #sendUdp(from: Address, to: Address, payload: Buffer): void {
    const datagram = Buffer.alloc(8 + payload.length);
    datagram.writeUInt16BE(from.port, 0);
    datagram.writeUInt16BE(to.port, 2);
    datagram.writeUInt16BE(datagram.length, 4);
    payload.copy(datagram, 8);
    datagram.writeUInt16BE(~udpSum(from.host, to.host, datagram) & 0xffff || 0xffff, 6);
    this.#send(from.host, to.host, Protocol.Udp, datagram);
  }

  #send(from: string, to: string, protocol: number, payload: Buffer): void {
    const frame = Buffer.alloc(VNET_HEADER_LENGTH + 20 + payload.length);
    const packet = frame.subarray(VNET_HEADER_LENGTH);
    packet[0] = 0x45;
    packet.writeUInt16BE(packet.length, 2);
    packet[8] = 64;
    packet[9] = protocol;
    IpAddress.parse(from).writeTo(packet, 12);
    IpAddress.parse(to).writeTo(packet, 16);
    packet.writeUInt16BE(~fold(sumBytes(packet, 0, 20, 0)) & 0xffff, 10);
    payload.copy(packet, 20);
    this.#device.write(frame, 0, frame.length);
  }
}

function echo(type: number, data: Buffer): Buffer {
  const message = Buffer.concat([Buffer.from([type, 0, 0, 0, 0, 1, 0, 1]), data]);
  message.writeUInt16BE(~fold(sumBytes(message, 0, message.length, 0)) & 0xffff, 2);
  return message;
}

/** Returns the sum of the datagram and its pseudo-header (RFC 768), which is 0xffff for a correct checksum. */
function udpSum(from: string, to: string, datagram: Buffer): number {
  const pseudo = Buffer.alloc(12);
  IpAddress.parse(from).writeTo(pseudo, 0);
  IpAddress.parse(to).writeTo(pseudo, 4);
  pseudo[9] = Protocol.Udp;
  pseudo.writeUInt16BE(datagram.length, 10);
  return fold(sumBytes(datagram, 0, datagram.length, sumBytes(pseudo, 0, 12, 0)));
}

const ECHO_REPLY = 0;
const ECHO_REQUEST = 8;
