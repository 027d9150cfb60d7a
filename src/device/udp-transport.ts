/**
 * Carries packets over UDP, one in each datagram, to and from one peer. The socket is connected to the peer,
 * so the kernel drops datagrams from other sources.
 * @module
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, isIP } from 'node:net';
import type { HostPort } from '../base/host-port.ts';
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import type { Receiver, Transport } from './transport.ts';

/** The longest payload of a datagram over IPv4, in bytes: 65,535 without the IP and UDP headers. */
export const MAX_DATAGRAM_LENGTH: number = 65_535 - 20 - 8;

/** A UDP socket with its peer. */
export class UdpTransport implements Transport {
  /**
   * Binds the socket, and connects it if the peer is known.
   *
   * @param peer with `undefined`, the source of the first datagram becomes the peer.
   * @throws {ApiMisuseError} if the two addresses are not of one family.
   * @throws {EnvironmentError} if the address cannot be used.
   */
  static async open(
    local: HostPort,
    peer: HostPort | undefined,
    queueLength: number,
    receiver: Receiver
  ): Promise<UdpTransport> {
    const family = isIP(local.host);
    if (peer && isIP(peer.host) !== family) {
      throw new ApiMisuseError(
        `local ${local.host} and peer ${peer.host} are not addresses of one IP version`
      );
    }
    const socket = createSocket({ type: family === 6 ? 'udp6' : 'udp4' });
    try {
      socket.bind({ address: local.host, port: local.port, exclusive: true });
      await once(socket, 'listening');
      if (peer) {
        socket.connect(peer.port, peer.host);
        await once(socket, 'connect');
      }
    } catch (cause) {
      socket.close();
      const to = peer ? ` with peer ${peer.host} port ${peer.port}` : '';
      throw new EnvironmentError(
        `UDP ${local.host} port ${local.port}${to} cannot be opened: ${(cause as Error).message}`,
        { cause }
      );
    }
    return new UdpTransport(socket, peer !== undefined, queueLength, receiver);
  }

  readonly #socket: Socket;
  readonly #receiver: Receiver;
  readonly #queueLength: number;
  readonly #spare: OutgoingDatagram[] = [];
  #created = 0;
  /** `learning`: the socket is being connected to the peer that it has just learned. */
  #state: 'peerless' | 'learning' | 'connected' | 'closed';
  #peer: AddressInfo | undefined;

  private constructor(
    socket: Socket,
    isConnected: boolean,
    queueLength: number,
    receiver: Receiver
  ) {
    this.#socket = socket;
    this.#receiver = receiver;
    this.#queueLength = queueLength;
    this.#state = isConnected ? 'connected' : 'peerless';
    if (isConnected) this.#peer = socket.remoteAddress();
    socket.on('message', this.#onMessage);
    socket.on('error', () => {
      receiver.counters.socketErrors++;
      if (this.#state === 'learning') this.#state = 'peerless';
    });
  }

  get local(): HostPort {
    const { address, port } = this.#socket.address();
    return { host: address, port };
  }

  send(buffer: Buffer, offset: number, length: number): boolean {
    if (this.#state !== 'connected') return false;
    const outgoing = this.#spare.pop() ?? this.#newOutgoing();
    if (outgoing === undefined) return false;
    buffer.copy(outgoing.fit(length), 0, offset, offset + length);
    this.#socket.send(outgoing.buffer, 0, length, outgoing.onSent);
    return true;
  }

  /** Does nothing, because a datagram socket cannot stop its sender. */
  drained(): void {}

  close(): Promise<void> {
    this.#state = 'closed';
    return new Promise((resolve) => this.#socket.close(resolve));
  }

  readonly #onMessage = (data: Buffer, from: RemoteInfo): void => {
    if (this.#state === 'peerless') this.#learn(from);
    const peer = this.#peer;
    // The kernel does not check datagrams that arrived before the socket was connected.
    if (peer === undefined || from.port !== peer.port || from.address !== peer.address) {
      this.#receiver.counters.strangers++;
    } else if (data.length === 0) {
      this.#receiver.counters.malformed++;
    } else {
      this.#receiver.receive(data, 0, data.length);
    }
  };

  #learn(from: RemoteInfo): void {
    this.#peer = { address: from.address, port: from.port, family: from.family };
    this.#state = 'learning';
    this.#socket.connect(from.port, from.address, () => {
      if (this.#state === 'learning') this.#state = 'connected';
    });
  }

  #newOutgoing(): OutgoingDatagram | undefined {
    if (this.#created === this.#queueLength) return undefined;
    this.#created++;
    return new OutgoingDatagram(this.#spare, this.#receiver);
  }
}

/** The buffer of a packet until the kernel has taken it; it is used again then. */
class OutgoingDatagram {
  buffer: Buffer = Buffer.allocUnsafeSlow(2048);
  readonly onSent: (error: Error | null) => void;

  constructor(spare: OutgoingDatagram[], receiver: Receiver) {
    this.onSent = (error) => {
      if (error) receiver.counters.socketErrors++;
      spare.push(this);
    };
  }

  /** Returns the buffer, enlarged to `length` bytes if necessary. */
  fit(length: number): Buffer {
    if (this.buffer.length < length) this.buffer = Buffer.allocUnsafeSlow(length);
    return this.buffer;
  }
}
