/**
 * Carries packets over a unix stream socket, with the framing of `length-prefix.ts`, to and from one peer at
 * a time.
 *
 * `send` copies packets into a batch, which goes to the socket in the next microtask. Reading from the stream
 * pauses while the reader has many packets to read.
 * @module
 */
import { once } from 'node:events';
import { unlink } from 'node:fs/promises';
import { createServer, type Server, Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import { MAX_PACKET_LENGTH } from '../packet/virtio.ts';
import { checkGiven, checkWhole } from './contract.ts';
import { LENGTH_PREFIX, LengthPrefixReader } from './length-prefix.ts';
import type { Receiver, Transport } from './transport.ts';

export interface UnixTransportOptions {
  readonly path: string;
  readonly role: 'listen' | 'connect';
  readonly reconnectMs: number;
  readonly clock: Clock;
}

/** A unix socket, with at most one connection. */
export class UnixTransport implements Transport {
  /**
   * Listens or connects, as the role says.
   *
   * @throws {ApiMisuseError} if the path is too long or an option is invalid.
   * @throws {EnvironmentError} if the socket cannot be opened at the path, or nobody listens there.
   */
  static async open(
    options: UnixTransportOptions,
    queueLength: number,
    receiver: Receiver
  ): Promise<UnixTransport> {
    const { path, role, reconnectMs, clock } = options;
    checkGiven('path', path, 'string');
    if (role !== 'listen' && role !== 'connect') {
      throw new ApiMisuseError(`role must be listen or connect, not ${role}`);
    }
    const pathLength = Buffer.byteLength(path);
    // Node would truncate a longer path silently.
    if (pathLength === 0 || pathLength > MAX_PATH_LENGTH || path.includes('\0')) {
      throw new ApiMisuseError(
        `path of a unix socket must have 1 to ${MAX_PATH_LENGTH} bytes, not ${pathLength}: "${path}"`
      );
    }
    checkWhole('reconnectMs', reconnectMs, 1, 2 ** 31 - 1);
    const transport = new UnixTransport(path, queueLength, receiver, (callback) =>
      clock.after(reconnectMs, callback)
    );
    try {
      if (role === 'listen') await transport.#listen();
      else transport.#attach(await connect(path));
    } catch (cause) {
      const what = role === 'listen' ? 'listened at' : 'connected to';
      throw new EnvironmentError(
        `unix socket ${path} cannot be ${what}: ${(cause as Error).message}`,
        { cause }
      );
    }
    return transport;
  }

  readonly #path: string;
  readonly #queueLength: number;
  readonly #receiver: Receiver;
  readonly #setRetryTimer: (callback: () => void) => () => void;
  #server: Server | undefined;
  #socket: Socket | undefined;
  #stopRetrying: (() => void) | undefined;
  #isClosed = false;

  /** Packets in `#batch` and in batches that the kernel has not taken yet. */
  #pending = 0;
  #batch: Batch | undefined;
  readonly #spareBatches: Batch[] = [];

  private constructor(
    path: string,
    queueLength: number,
    receiver: Receiver,
    setRetryTimer: (callback: () => void) => () => void
  ) {
    this.#path = path;
    this.#queueLength = queueLength;
    this.#receiver = receiver;
    this.#setRetryTimer = setRetryTimer;
  }

  send(buffer: Buffer, offset: number, length: number): boolean {
    if (this.#socket === undefined || this.#pending === this.#queueLength) return false;
    if (this.#batch && this.#batch.length + LENGTH_PREFIX + length > BATCH_LENGTH) this.#flush();
    let batch = this.#batch;
    if (batch === undefined) {
      batch = this.#spareBatches.pop() ?? newBatch();
      this.#batch = batch;
      queueMicrotask(this.#flush);
    }
    batch.buffer.writeUInt32BE(length, batch.length);
    buffer.copy(batch.buffer, batch.length + LENGTH_PREFIX, offset, offset + length);
    batch.length += LENGTH_PREFIX + length;
    batch.packets++;
    this.#pending++;
    return true;
  }

  drained(): void {
    this.#socket?.resume();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#stopRetrying?.();
    const server = this.#server;
    const closed = server && new Promise((resolve) => server.close(resolve));
    this.#socket?.destroy();
    this.#socket = undefined;
    await closed;
  }

  async #listen(): Promise<void> {
    const server = createServer((socket) => {
      if (this.#socket) {
        this.#receiver.counters.strangers++;
        socket.destroy();
      } else {
        this.#attach(socket);
      }
    });
    this.#server = server;
    try {
      server.listen(this.#path);
      await once(server, 'listening');
    } catch (error) {
      if (!(await isAbandoned(this.#path, error))) throw error;
      await unlink(this.#path);
      server.listen(this.#path);
      await once(server, 'listening');
    }
    server.on('error', () => {
      this.#receiver.counters.socketErrors++;
    });
  }

  #attach(socket: Socket): void {
    this.#socket = socket;
    let mustPause = false;
    const reader = new LengthPrefixReader((buffer, offset, length) => {
      if (!this.#receiver.receive(buffer, offset, length)) mustPause = true;
    });
    socket.on('data', (chunk) => {
      mustPause = false;
      if (!reader.push(chunk as Buffer)) {
        this.#receiver.counters.malformed++;
        socket.destroy();
      } else if (mustPause) {
        socket.pause();
      }
    });
    socket.on('error', () => {
      this.#receiver.counters.socketErrors++;
    });
    socket.on('close', () => {
      if (this.#socket === socket) this.#socket = undefined;
      if (!this.#server) this.#retry();
    });
  }

  #retry(): void {
    if (this.#isClosed) return;
    this.#stopRetrying = this.#setRetryTimer(() => {
      connect(this.#path).then(
        (socket) => {
          if (this.#isClosed) socket.destroy();
          else this.#attach(socket);
        },
        () => {
          this.#receiver.counters.socketErrors++;
          this.#retry();
        }
      );
    });
  }

  readonly #flush = (): void => {
    const batch = this.#batch;
    if (batch === undefined) return;
    this.#batch = undefined;
    if (this.#socket === undefined) {
      this.#release(batch);
    } else {
      this.#socket.write(batch.buffer.subarray(0, batch.length), () => this.#release(batch));
    }
  };

  #release(batch: Batch): void {
    this.#pending -= batch.packets;
    batch.length = 0;
    batch.packets = 0;
    if (this.#spareBatches.length < MAX_SPARE_BATCHES) this.#spareBatches.push(batch);
  }
}

/** Packets, each behind its length, that are written to the socket in one call. */
interface Batch {
  readonly buffer: Buffer;
  length: number;
  packets: number;
}

function newBatch(): Batch {
  return { buffer: Buffer.allocUnsafeSlow(BATCH_LENGTH), length: 0, packets: 0 };
}

async function connect(path: string): Promise<Socket> {
  const socket = new Socket();
  socket.connect(path);
  await once(socket, 'connect');
  return socket;
}

/** Returns whether the path is a socket file of a process that has ended. */
async function isAbandoned(path: string, error: unknown): Promise<boolean> {
  if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return false;
  try {
    (await connect(path)).destroy();
    return false;
  } catch (refusal) {
    return (refusal as NodeJS.ErrnoException).code === 'ECONNREFUSED';
  }
}

/** Bytes of `sun_path` without its terminating zero, see unix(7). */
const MAX_PATH_LENGTH = 107;
/** Two of the longest packets, so that one always fits after a flush. */
const BATCH_LENGTH: number = 2 * (LENGTH_PREFIX + MAX_PACKET_LENGTH);
const MAX_SPARE_BATCHES = 4;
