/**
 * The UDP sockets that have one peer and an address of their own each, by these four: those of the service side. There
 * may be thousands at one port, so a keyed hash leads to a chain of sockets, which is nearly always one socket long.
 * @module
 */
import type { Family, IpAddress } from '../../base/address.ts';
import type { PacketHeader } from '../../packet/header.ts';
import { SequenceNumbers } from '../../tcp/isn.ts';
import { isAddressAt } from '../ip/address-at.ts';
import type { UdpSocket } from './udp-socket.ts';

/** Both ends of a datagram, as seen from this stack. */
export interface UdpEnds {
  readonly local: IpAddress;
  readonly localPort: number;
  readonly remote: IpAddress;
  readonly remotePort: number;
}

export class UdpFlowTable {
  readonly #numbers: SequenceNumbers;
  readonly #chains = new Map<number, UdpSocket>();
  readonly #words: Readonly<Record<Family, readonly [Int32Array, Int32Array]>> = {
    4: [new Int32Array(1), new Int32Array(1)],
    6: [new Int32Array(4), new Int32Array(4)],
  };
  #size = 0;

  /** @param random returns an unsigned 32-bit integer that nobody can predict */
  constructor(random: () => number) {
    const secret = Uint32Array.from({ length: 8 }, random);
    this.#numbers = new SequenceNumbers(new Uint8Array(secret.buffer));
  }

  get size(): number {
    return this.#size;
  }

  /** Adds a socket that is connected and has an address; the caller has made sure that its ends are not in the table. */
  add(socket: UdpSocket & UdpEnds): void {
    const hash = this.#hashOf(socket);
    socket.chained = this.#chains.get(hash);
    this.#chains.set(hash, socket);
    this.#size++;
  }

  /** Returns false if it was removed before. */
  remove(socket: UdpSocket & UdpEnds): boolean {
    const hash = this.#hashOf(socket);
    const first = this.#chains.get(hash);
    if (first === socket) {
      if (socket.chained === undefined) this.#chains.delete(hash);
      else this.#chains.set(hash, socket.chained);
    } else {
      let before = first;
      while (before !== undefined && before.chained !== socket) before = before.chained;
      if (before === undefined) return false;
      before.chained = socket.chained;
    }
    socket.chained = undefined;
    this.#size--;
    return true;
  }

  /** Returns the socket of a packet. */
  findPacket(view: DataView, header: PacketHeader): UdpSocket | undefined {
    if (this.#size === 0) return undefined;
    const { family, source, sourcePort, destinationPort } = header;
    const [local, remote] = this.#words[family];
    const destination = source + (family === 4 ? 4 : 16);
    for (let i = 0; i < local.length; i++) {
      local[i] = view.getInt32(destination + 4 * i);
      remote[i] = view.getInt32(source + 4 * i);
    }
    const hash = this.#numbers.flowHash(local, destinationPort, remote, sourcePort);
    let socket = this.#chains.get(hash);
    while (socket !== undefined && !isOf(socket, view, header, destination)) {
      socket = socket.chained;
    }
    return socket;
  }

  /** Returns the socket with these ends. */
  find(ends: UdpEnds): UdpSocket | undefined {
    if (this.#size === 0) return undefined;
    let socket = this.#chains.get(this.#hashOf(ends));
    while (socket !== undefined && !hasEnds(socket, ends)) socket = socket.chained;
    return socket;
  }

  /** All of them; any may be removed meanwhile. */
  *[Symbol.iterator](): IterableIterator<UdpSocket> {
    for (const first of [...this.#chains.values()]) {
      let socket: UdpSocket | undefined = first;
      while (socket !== undefined) {
        const { chained }: UdpSocket = socket;
        yield socket;
        socket = chained;
      }
    }
  }

  #hashOf({ local, localPort, remote, remotePort }: UdpEnds): number {
    return this.#numbers.flowHash(local.words, localPort, remote.words, remotePort);
  }
}

function isOf(
  { family, local, localPort, remote, remotePort }: UdpSocket,
  view: DataView,
  header: PacketHeader,
  destination: number
): boolean {
  return (
    family === header.family &&
    localPort === header.destinationPort &&
    remotePort === header.sourcePort &&
    isAddressAt(view, header.source, remote!) &&
    isAddressAt(view, destination, local!)
  );
}

function hasEnds(socket: UdpSocket, { local, localPort, remote, remotePort }: UdpEnds): boolean {
  return (
    socket.localPort === localPort &&
    socket.remotePort === remotePort &&
    socket.remote!.equals(remote) &&
    socket.local!.equals(local)
  );
}
