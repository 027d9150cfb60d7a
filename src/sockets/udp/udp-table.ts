/**
 * The bound UDP sockets of one IP version, by local port.
 * @module
 */
import type { PacketHeader } from '../../packet/header.ts';
import { PortTable } from '../../tcp/port-table.ts';
import type { IcmpError } from '../icmp/icmp-error.ts';
import { isAddressAt } from '../ip/address-at.ts';
import type { UdpSocket } from './udp-socket.ts';

export class UdpTable extends PortTable<UdpSocket> {
  /** Returns the socket of a packet: one that is connected to its source goes first, then one bound to its address. */
  find(view: DataView, header: PacketHeader): UdpSocket | undefined {
    const { family, source, sourcePort, destinationPort } = header;
    const destination = source + (family === 4 ? 4 : 16);
    let best: UdpSocket | undefined;
    let bestScore = -1;
    for (const socket of this.at(destinationPort)) {
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
    return this.at(localPort).find(
      (each) =>
        (each.local === undefined || each.local.equals(local)) &&
        (each.remote === undefined ||
          (each.remotePort === remotePort && each.remote.equals(remote)))
    );
  }
}
