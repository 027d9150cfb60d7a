/**
 * A socket of the operating system whose bytes go on to a presence without new memory.
 *
 * A `net.Socket` allocates 64 KiB for each read, which costs as much as the read itself. This one reads into a buffer that
 * all of them share: a read ends before the next one begins, and its bytes are copied into the send buffer of the
 * presence meanwhile. What that does not take, and all that arrives before `readTarget` is set, becomes a chunk of the
 * stream, as in every `net.Socket`.
 * @module
 */
import net from 'node:net';
import type { PresenceSocket } from '../stream/socket.ts';

export class SharedReadSocket extends net.Socket {
  /** Where bytes go while this socket flows. Whoever sets it also listens for `data`, and sends that to the same one. */
  readTarget: Pick<PresenceSocket, 'writeNow'> | undefined;

  /** @param options those that `net.connect` takes, without `onread` */
  constructor(options: net.TcpNetConnectOpts) {
    const onread: net.OnReadOpts = {
      buffer: BUFFER,
      callback: (length) => this.#onRead(BUFFER.subarray(0, length)),
    };
    const all: net.TcpNetConnectOpts = { ...options, onread };
    super(all);
  }

  /** Returns whether to go on reading. */
  #onRead(bytes: Buffer): boolean {
    const isDirect = this.readableFlowing === true && this.readableLength === 0;
    const taken = isDirect ? (this.readTarget?.writeNow(bytes) ?? 0) : 0;
    return taken === bytes.length || this.push(Buffer.from(bytes.subarray(taken)));
  }
}

/** As much as a `net.Socket` reads at once. */
const BUFFER: Buffer = Buffer.allocUnsafeSlow(65_536);
