/**
 * Sends the datagrams of one `PresenceDatagramSocket`: waits for the stack, looks names up, and calls the callbacks.
 * @module
 */
import { isIP } from 'node:net';
import { type Family, IpAddress } from '../../base/address.ts';
import { DATAGRAM_OVERHEAD, QUEUE_LIMIT } from '../ip/datagram-queue.ts';
import { callLookup } from '../node/program-lookup.ts';
import { downError, systemError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import type { SendCallback } from './datagram-arguments.ts';
import type { SentDatagram, UdpSocket } from './udp-socket.ts';
import { WaitingCalls } from './waiting-calls.ts';

/** Looks a name up: `(hostname, 4 or 6, callback)`, as `dgram` calls it. */
export type DatagramLookup = (
  hostname: string,
  family: number,
  callback: (error: Error | null, address: string, family?: number) => void
) => void;

/** A datagram on its way to the queue of the UDP socket. */
export interface Outgoing {
  readonly payload: Uint8Array;
  /** 0 if it goes to the peer that the socket is connected to. */
  readonly port: number;
  readonly address: string | undefined;
  readonly callback: SendCallback | undefined;
}

export class DatagramSender {
  /** The bound of what waits in front of the queue of the UDP socket, in bytes. */
  limit: number = QUEUE_LIMIT;
  /** Set once the socket is bound. */
  socket: UdpSocket | undefined;

  readonly #host: SocketHost;
  readonly #family: Family;
  readonly #lookup: DatagramLookup | undefined;
  /** What waits for the stack to be up. Once it was, the rest waits in the queue of the UDP socket. */
  readonly #up: WaitingCalls = new WaitingCalls();
  readonly #onLookupError: (error: Error) => void;
  #heldBytes = 0;
  #heldCount = 0;

  /** @param onLookupError is told of names that are not found, for datagrams without a callback */
  constructor(
    host: SocketHost,
    family: Family,
    lookup: DatagramLookup | undefined,
    onLookupError: (error: Error) => void
  ) {
    this.#host = host;
    this.#family = family;
    this.#lookup = lookup;
    this.#onLookupError = onLookupError;
  }

  /** How many datagrams wait, here and in the queue of the UDP socket. */
  get queueCount(): number {
    return this.#heldCount + (this.socket?.outgoing.length ?? 0);
  }

  /** How many bytes of payload they have. */
  get queueSize(): number {
    const queue = this.socket?.outgoing;
    const held = this.#heldBytes - this.#heldCount * DATAGRAM_OVERHEAD;
    return held + (queue === undefined ? 0 : queue.bytes - queue.length * DATAGRAM_OVERHEAD);
  }

  /**
   * Takes a datagram, which `send` or `fail` must follow.
   *
   * @returns false if too many bytes wait, here or at all sockets; the callback gets ENOBUFS
   */
  hold(datagram: Outgoing): boolean {
    const { memory } = this.#host.udp;
    const bytes = datagram.payload.length + DATAGRAM_OVERHEAD;
    if (this.#heldBytes + bytes > this.limit || !memory.admits(bytes)) {
      this.#settle(datagram, this.#error('ENOBUFS', datagram));
      return false;
    }
    memory.take(bytes);
    this.#heldBytes += bytes;
    this.#heldCount++;
    return true;
  }

  /** Sends a datagram that is held. */
  send(datagram: Outgoing): void {
    if (this.#up.isOpen) {
      this.#lookUpAndSend(datagram);
      return;
    }
    this.whenUp(
      () => this.#lookUpAndSend(datagram),
      (error) => this.fail(datagram, downError(error, 'send', datagram) as Error)
    );
  }

  /** Calls `run` when the stack is up, at once if it has been; or `fail` if that takes too long. */
  whenUp(run: () => void, fail: (error: Error) => void): void {
    this.#up.add(run, fail);
    if (this.#up.size !== 1) return;
    // What listeners throw must not become the rejection of this promise.
    this.#host.whenUp().then(
      () => process.nextTick(() => this.#up.open()),
      (error: Error) => process.nextTick(() => this.#up.fail(error))
    );
  }

  /** Fails what waits for the stack: the socket is closed. */
  cancel(): void {
    this.#up.fail(systemError('ECANCELED', 'send'));
  }

  /** Gives a datagram up that is held. */
  fail(datagram: Outgoing, error: Error): void {
    this.#release(datagram);
    this.#settle(datagram, error);
  }

  /** Calls the callbacks of datagrams that left the queue of the UDP socket. */
  onSent(sent: readonly SentDatagram[]): void {
    for (const { request, bytes, failure } of sent) {
      const datagram = request as Outgoing;
      this.#settle(datagram, failure && this.#error(failure, datagram), bytes);
    }
  }

  /** Calls back with the first address of a name; without a name, that of the host itself, as in Node. */
  lookUp(
    name: string | undefined,
    callback: (error: Error | null, address: IpAddress | undefined) => void
  ): void {
    const hostname = name || (this.#family === 4 ? '127.0.0.1' : '::1');
    if (this.#lookup !== undefined) {
      callLookup(this.#lookup, hostname, this.#family, (error, found) =>
        callback(error, found?.[0] && this.#addressOf(found[0].address))
      );
      return;
    }
    if (isIP(hostname) !== 0) {
      callback(null, this.#addressOf(hostname));
      return;
    }
    let addresses: readonly IpAddress[] = [];
    let failure: Error | null = null;
    try {
      addresses = this.#host.resolve(hostname, this.#family);
    } catch (error) {
      failure = error as Error;
    }
    callback(failure, addresses[0]);
  }

  /** Returns undefined for an address of the other IP version, which is an invalid argument. */
  #addressOf(text: string): IpAddress | undefined {
    return isIP(text) === this.#family ? IpAddress.parse(text) : undefined;
  }

  #lookUpAndSend(datagram: Outgoing): void {
    if (datagram.port === 0) {
      this.#transmit(datagram, this.socket?.remote, this.socket?.remotePort ?? 0);
      return;
    }
    this.lookUp(datagram.address, (error, remote) => {
      if (error === null) {
        this.#transmit(datagram, remote, datagram.port);
        return;
      }
      this.fail(datagram, error);
      if (datagram.callback === undefined) this.#onLookupError(error);
    });
  }

  #transmit(datagram: Outgoing, remote: IpAddress | undefined, port: number): void {
    const { socket } = this;
    // It is counted in the queue of the UDP socket from here on.
    this.#release(datagram);
    let code: string | undefined = 'EINVAL';
    if (socket === undefined || socket.isClosed) {
      code = 'ECANCELED';
    } else if (this.#host.closedBy !== undefined) {
      code = 'ENETDOWN';
    } else if (remote !== undefined) {
      const request = datagram.callback && datagram;
      code = this.#host.refusal('udp', remote, port);
      code ??= socket.send(datagram.payload, remote, port, request);
    }
    if (code !== undefined) this.#settle(datagram, this.#error(code, datagram));
  }

  #release({ payload }: Outgoing): void {
    const bytes = payload.length + DATAGRAM_OVERHEAD;
    this.#host.udp.memory.take(-bytes);
    this.#heldBytes -= bytes;
    this.#heldCount--;
  }

  #error(code: string, { address, port }: Outgoing): Error {
    const fault = code === 'EADDRNOTAVAIL' ? this.#host.addressFault(this.#family) : undefined;
    const cause = code === 'ENETDOWN' ? this.#host.closedBy : fault;
    return systemError(code, 'send', { address, port, cause });
  }

  /** Calls the callback of a datagram later; without one, errors of sending are not told of, as in Node. */
  #settle({ callback }: Outgoing, error: Error | undefined, bytes = 0): void {
    if (callback === undefined) return;
    if (error === undefined) process.nextTick(callback, null, bytes);
    else process.nextTick(callback as (error: Error) => void, error);
  }
}
