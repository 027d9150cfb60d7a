/**
 * The bound UDP sockets of one IP version, by local port.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { PacketHeader } from '../packet/header.ts';
import { isAddressAt } from './address-at.ts';
import type { IcmpError } from './icmp-error.ts';
import type { UdpSocket } from './udp-socket.ts';

export class UdpTable {
  readonly #ports = new Map<number, UdpSocket[]>();

  /** Returns whether the port cannot be bound for this address: a socket that is bound to all shares with none. */
  isTaken(port: number, local: IpAddress | undefined): boolean {
    const sockets = this.#ports.get(port);
    if (sockets === undefined) return false;
    return sockets.some(
      (each) => local === undefined || each.local === undefined || each.local.equals(local)
    );
  }

  add(socket: UdpSocket): void {
    const others = this.#ports.get(socket.localPort);
    if (others === undefined) this.#ports.set(socket.localPort, [socket]);
    else others.push(socket);
  }

  remove(socket: UdpSocket): void {
    const others = this.#ports.get(socket.localPort)?.filter((each) => each !== socket) ?? [];
    if (others.length === 0) this.#ports.delete(socket.localPort);
    else this.#ports.set(socket.localPort, others);
  }

  *[Symbol.iterator](): IterableIterator<UdpSocket> {
    for (const sockets of [...this.#ports.values()]) yield* [...sockets];
  }

  /** Returns the socket of a packet: one that is connected to its source goes first, then one bound to its address. */
  find(view: DataView, header: PacketHeader): UdpSocket | undefined {
    const { family, source, sourcePort, destinationPort } = header;
    const sockets = this.#ports.get(destinationPort);
    if (sockets === undefined) return undefined;
    const destination = source + (family === 4 ? 4 : 16);
    let best: UdpSocket | undefined;
    let bestScore = -1;
    for (const socket of sockets) {
      const { local, remote } = socket;
      if (local !== undefined && !isAddressAt(view, destination, local)) continue;
      const isPeer =
        remote === undefined ||
        (socket.remotePort === sourcePort && isAddressAt(view, source, remote));
      if (!isPeer) continue;
      const score = (local === undefined ? 0 : 1) + (remote === undefined ? 0 : 2);
      if (score <= bestScore) continue;
      best = socket;
      bestScore = score;
    }
    return best;
  }

  /** Returns the socket that can have sent the quoted packet. */
  findSender({ local, localPort, remote, remotePort }: IcmpError): UdpSocket | undefined {
    return this.#ports
      .get(localPort)
      ?.find(
        (each) =>
          (each.local === undefined || each.local.equals(local)) &&
          (each.remote === undefined ||
            (each.remotePort === remotePort && each.remote.equals(remote)))
      );
  }
}
