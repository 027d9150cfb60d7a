/**
 * The capture that a benchmark without one of the user replays: IMIX, packets of 64, 576 and 1500 bytes, 7 to 4 to 1,
 * between 100 clients and a service, half of them TCP and half UDP, in both directions. It is the same each time.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import {
  IPV4_MIN_HEADER,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_DATA_OFFSET,
  TCP_FLAG_ACK,
  TCP_FLAG_SYN,
  TCP_FLAGS,
  UDP_LENGTH,
} from '../packet/fields.ts';
import { PcapngWriter } from '../packet/index.ts';
import { writeAddresses, writeIpv4Header } from '../packet/ip-writer.ts';

/** Returns the bytes of a pcapng capture. The transport checksums are zero: the translator does not verify them. */
export function builtInMix(): Uint8Array {
  const parts: Uint8Array[] = [];
  const writer = new PcapngWriter({ write: (bytes) => parts.push(bytes) });
  const network = writer.interface('mix');
  const buffer = new Uint8Array(SIZES[2]!);
  const view = new DataView(buffer.buffer);
  let number = 0;
  const put = (client: number, isTcp: boolean, isReply: boolean, size: number, flags: number) => {
    buffer.fill(0);
    const clientAddress = IpAddress.fromWords([CLIENTS_FROM + client]);
    const [source, destination] = isReply ? [SERVICE, clientAddress] : [clientAddress, SERVICE];
    writeAddresses(view, 0, source, destination);
    writeIpv4Header(view, 0, size, isTcp ? PROTOCOL_TCP : PROTOCOL_UDP, 0, 0);
    const ports = [CLIENT_PORT + client, isTcp ? TCP_PORT : UDP_PORT];
    if (isReply) ports.reverse();
    for (const [i, port] of ports.entries()) view.setUint16(IPV4_MIN_HEADER + 2 * i, port);
    if (isTcp) {
      view.setUint8(IPV4_MIN_HEADER + TCP_DATA_OFFSET, 5 << 4);
      view.setUint8(IPV4_MIN_HEADER + TCP_FLAGS, flags);
    } else {
      view.setUint16(IPV4_MIN_HEADER + UDP_LENGTH, size - IPV4_MIN_HEADER);
    }
    writer.packet(network, EPOCH_MS + number++ / 100, 'inbound', buffer, 0, size);
  };
  for (let client = 0; client < CLIENTS; client++) {
    put(client, true, false, SIZES[0]!, TCP_FLAG_SYN);
    put(client, true, true, SIZES[0]!, TCP_FLAG_SYN | TCP_FLAG_ACK);
    put(client, false, false, SIZES[0]!, 0);
  }
  let random = 1;
  const below = (limit: number): number => {
    random = (Math.imul(random, LCG_FACTOR) + LCG_STEP) >>> 0;
    return Math.floor((random / 2 ** 32) * limit);
  };
  for (let n = 0; n < PACKETS; n++) {
    const size = SIZES[SHARES[below(SHARES.length)]!]!;
    put(below(CLIENTS), below(2) === 0, below(2) === 0, size, TCP_FLAG_ACK);
  }
  return Buffer.concat(parts);
}

const SIZES: readonly number[] = [64, 576, 1500];
/** The sizes of twelve packets. */
const SHARES: readonly number[] = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2];
const CLIENTS = 100;
const PACKETS = 12_000;
/** A linear congruential generator of pseudo-random numbers. */
const LCG_FACTOR = 1_664_525;
const LCG_STEP = 1_013_904_223;
const CLIENT_PORT = 40_000;
const TCP_PORT = 443;
const UDP_PORT = 53;
const EPOCH_MS: number = Date.UTC(2026, 0, 1);
/** 10.0.0.5 */
const SERVICE: IpAddress = /* @__PURE__ */ IpAddress.fromWords([0x0a00_0005]);
/** 10.1.0.1 */
const CLIENTS_FROM = 0x0a01_0001;
