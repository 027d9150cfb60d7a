/**
 * The TCP connection of one client. It takes pipelined queries, sends each answer when it is ready
 * ([RFC 7766 section 6](https://www.rfc-editor.org/rfc/rfc7766#section-6)), and bounds the memory that
 * the client can occupy.
 * @module
 */
import type { Socket } from 'node:net';
import { encodeFrame, FrameDecoder } from './framing.ts';
import type { SiteResolver } from './resolver.ts';

export interface TcpConnectionLimits {
  readonly idleTimeoutMs: number;
  readonly maxInFlight: number;
}

/** Owns a new socket, which was created with `allowHalfOpen`, until the socket closes. */
export class TcpConnection {
  readonly #socket: Socket;
  readonly #address: string;
  readonly #resolver: SiteResolver;
  readonly #maxInFlight: number;
  readonly #decoder = new FrameDecoder();
  /** Restarted by every whole query and every answer from an upstream, not by single bytes. */
  readonly #idle: NodeJS.Timeout;
  #inFlight = 0;
  #clientEnded = false;

  /** @param address of the client; a closed socket does not have it any more. */
  constructor(
    socket: Socket,
    address: string,
    resolver: SiteResolver,
    limits: TcpConnectionLimits
  ) {
    this.#socket = socket;
    this.#address = address;
    this.#resolver = resolver;
    this.#maxInFlight = limits.maxInFlight;
    this.#idle = setTimeout(() => this.#onIdle(), limits.idleTimeoutMs);
    socket.on('data', (chunk) => {
      this.#decoder.push(chunk);
      this.#pump();
    });
    socket.on('drain', () => this.#pump());
    socket.on('end', () => {
      this.#clientEnded = true;
      this.#pump();
    });
    // A client that has gone needs no answer; 'close' follows.
    socket.on('error', () => {});
    socket.on('close', () => clearTimeout(this.#idle));
  }

  /**
   * Answers the queries that have arrived whole. Pauses the socket while too many queries wait for
   * upstreams or the client does not read its answers; it is called again when that has changed.
   */
  #pump(): void {
    while (!this.#socket.destroyed) {
      if (this.#inFlight >= this.#maxInFlight || this.#socket.writableNeedDrain) {
        this.#socket.pause();
        return;
      }
      const query = this.#decoder.next();
      if (query === undefined) break;
      this.#idle.refresh();
      this.#answer(query);
    }
    if (this.#clientEnded && this.#inFlight === 0) this.#socket.end();
    this.#socket.resume();
  }

  #answer(query: Buffer): void {
    const answer = this.#resolver.resolve(query, 'tcp', this.#address);
    if (!(answer instanceof Promise)) {
      this.#send(answer);
      return;
    }
    this.#inFlight++;
    void answer.then((bytes) => {
      this.#inFlight--;
      this.#idle.refresh();
      this.#send(bytes);
      this.#pump();
    });
  }

  /** Closes the connection after a message that gets no answer: its sender is no DNS client. */
  #send(answer: Uint8Array | undefined): void {
    if (answer === undefined) this.#socket.destroy();
    else if (this.#socket.writable) this.#socket.write(encodeFrame(answer));
  }

  #onIdle(): void {
    if (this.#inFlight > 0) this.#idle.refresh();
    else this.#socket.destroy();
  }
}
