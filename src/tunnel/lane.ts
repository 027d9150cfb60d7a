/**
 * A lane: one TLS connection that carries frames, and the conversation on it: handshake, keepalive,
 * close. What goes out passes through an `Outbox`.
 *
 * A packet's way in: `FrameDecoder` finds it in the chunk that the socket has read, `onPacket` takes
 * it where it lies, `onBatchEnd` follows each chunk.
 * @module
 */
import type { TLSSocket } from 'node:tls';
import { ApiMisuseError } from '../errors.ts';
import type { Json } from '../store/store.ts';
import {
  FRAME_HEADER_LENGTH,
  FrameDecoder,
  FrameFault,
  FrameType,
  handshakeLimits,
  MAX_FRAME_PAYLOAD,
  openLimits,
  PING_LENGTH,
  writeFrameHeader,
} from './frame.ts';
import { CloseCode, jsonFrame, parseJson, printable, readClose } from './messages.ts';
import { Outbox } from './outbox.ts';
import type { SlabPool } from './slab-pool.ts';
import type { Timers } from './timers.ts';

/** Cumulative. Bytes of packets are counted with their virtio-net header, without the frame's. */
export interface LaneCounters {
  sentPackets: number;
  sentBytes: number;
  receivedPackets: number;
  receivedBytes: number;
  sentControl: number;
  receivedControl: number;
}

/** Why a lane has ended. */
export interface CloseCause {
  /** Who ended it: this side, the far side by a CLOSE, or neither (the connection broke). */
  readonly by: 'us' | 'peer' | 'network';
  /** One of `CloseCode`, or a code of the peer's own. */
  readonly code: string;
  readonly reason: string;
}

/** What a lane reports to the tunnel that it serves. */
export interface LaneOwner {
  readonly counters: LaneCounters;
  onPacket: (buffer: Buffer, start: number, end: number) => void;
  onBatchEnd: () => void;
  onDrain: () => void;
  /** HELLO or WELCOME came. Returns what is wrong with it, or undefined. */
  onHandshake(message: Json): string | undefined;
  onControl(message: Json): void;
  /** Called once; the lane carries nothing any more. */
  onLaneClosed(cause: CloseCause): void;
}

/** Bounds of what one lane takes and holds. */
export interface LaneLimits {
  /** Slabs of packets that may be on their way; default 8. */
  readonly maxSlabs?: number;
  /** Longest control message, in bytes of JSON; at most 16 MiB - 1; default 4 MiB. */
  readonly maxControlBytes?: number;
  /** Control messages that may wait to be sent, in bytes; default twice `maxControlBytes`. */
  readonly maxControlQueueBytes?: number;
  /** Control messages taken from the peer a second, averaged over 10 s; default 100. */
  readonly maxControlRate?: number;
}

export interface LaneOptions extends Required<LaneLimits> {
  readonly pool: SlabPool;
  readonly timers: Timers;
}

/** A way to the peer. Today a TLS connection; a tunnel asks for no more than this. */
export interface Lane {
  /** The slab that `reserve` pointed into. */
  readonly buffer: Buffer;

  /** Round-trip time of the last PING that was answered, in ms. */
  readonly rttMs: number | undefined;

  /** Resolves when the connection is gone and all memory is given back. */
  readonly gone: Promise<void>;

  /**
   * Returns the offset in `buffer` where the payload of the next frame may be written; there are
   * `MAX_PACKET_PAYLOAD` bytes of room. Returns -1 when the lane is not up, or when as much as it
   * may hold is on its way: then `onDrain` will be called. Holds until the next call of another
   * method, or the return to the event loop.
   */
  reserve(): number;

  /** Makes a frame of the `payloadLength` bytes that were written where `reserve` said. */
  commit(type: FrameType, payloadLength: number): void;

  /** Hands what was committed to the connection, now or as soon as it has taken what it has. */
  flush(): void;

  /**
   * Sends a message before all packets that wait. Returns false when the lane is not up, or too
   * many messages wait.
   *
   * @throws {ApiMisuseError} if the message is longer than `maxControlBytes`.
   */
  sendControl(message: Json): boolean;

  /** Ends the lane: takes nothing any more, sends what waits, then says why. */
  close(code: string, reason: string): void;

  /** Ends the lane: takes nothing any more, drops what waits, says why. */
  abort(code: string, reason: string): void;

  /** Ends the lane at once, without a word to the peer. */
  destroy(code: string, reason: string): void;
}

/**
 * Fills in the defaults.
 *
 * @throws {ApiMisuseError} if a limit is not a positive integer, or too large for the frame format.
 */
export function resolveLimits(limits: LaneLimits): Required<LaneLimits> {
  const { maxSlabs = 8, maxControlBytes = 4 * 1024 * 1024, maxControlRate = 100 } = limits;
  const { maxControlQueueBytes = 2 * maxControlBytes } = limits;
  const resolved = { maxSlabs, maxControlBytes, maxControlQueueBytes, maxControlRate };
  for (const [name, value] of Object.entries(resolved)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new ApiMisuseError(`${name} must be a positive integer, not ${value}`);
    }
  }
  if (maxControlBytes > MAX_FRAME_PAYLOAD) {
    throw new ApiMisuseError(`maxControlBytes must be at most ${MAX_FRAME_PAYLOAD}`);
  }
  return resolved;
}

export class TlsLane implements Lane {
  rttMs: number | undefined;
  readonly gone: Promise<void>;
  readonly #socket: TLSSocket;
  readonly #owner: LaneOwner;
  readonly #options: LaneOptions;
  readonly #counters: LaneCounters;
  readonly #decoder: FrameDecoder;
  readonly #outbox: Outbox;
  #phase: 'handshake' | 'up' | 'ended' = 'handshake';
  #keepaliveMs = 0;
  #cancelTimer: () => void = () => {};
  #heard = false;
  #silentTicks = 0;
  #pingSentMs = 0;
  readonly #ping: Buffer = Buffer.alloc(PING_LENGTH);
  #controlWindowMs = 0;
  #controlInWindow = 0;

  /** Serves a connection whose TLS handshake is done and checked; `first` is the frame to expect. */
  constructor(socket: TLSSocket, first: FrameType, owner: LaneOwner, options: LaneOptions) {
    this.#socket = socket;
    this.#owner = owner;
    this.#options = options;
    this.#counters = owner.counters;
    this.#decoder = new FrameDecoder(handshakeLimits(first));
    this.#outbox = new Outbox(socket, options.pool, options.maxSlabs, () => {
      if (this.#phase === 'up') owner.onDrain();
    });
    socket.setNoDelay(true);
    socket.on('data', this.#onChunk);
    socket.on('error', (error) => this.#end(lost(printable(error.message))));
    socket.on('end', () => this.#end(lost('the peer ended the connection')));
    this.gone = new Promise((resolve) => {
      socket.on('close', () => {
        this.#end(lost('the connection was closed'));
        this.#cancelTimer();
        this.#outbox.free();
        resolve();
      });
    });
  }

  get buffer(): Buffer {
    return this.#outbox.buffer;
  }

  /** Sends HELLO or WELCOME. */
  sendHandshake(type: FrameType, message: Json): void {
    this.#outbox.send(jsonFrame(type, message));
  }

  /** Lets packets and control messages through, and begins to send PING. */
  becomeUp(keepaliveMs: number): void {
    this.#phase = 'up';
    this.#decoder.limits = openLimits(this.#options.maxControlBytes);
    this.#keepaliveMs = keepaliveMs;
    this.#sendPing();
    this.#cancelTimer = this.#options.timers.after(keepaliveMs, this.#onTick);
  }

  reserve(): number {
    return this.#phase === 'up' ? this.#outbox.reserve() : -1;
  }

  commit(type: FrameType, payloadLength: number): void {
    this.#counters.sentPackets++;
    this.#counters.sentBytes += payloadLength;
    this.#outbox.commit(type, payloadLength);
  }

  flush(): void {
    this.#outbox.flush();
  }

  sendControl(message: Json): boolean {
    const { maxControlBytes, maxControlQueueBytes } = this.#options;
    if (this.#phase !== 'up') return false;
    const frame = jsonFrame(FrameType.Control, message);
    const length = frame.length - FRAME_HEADER_LENGTH;
    if (length > maxControlBytes) {
      throw new ApiMisuseError(
        `a control message of ${length} bytes is longer than the ${maxControlBytes} allowed`
      );
    }
    if (this.#outbox.messageBytes + frame.length > maxControlQueueBytes) return false;
    this.#counters.sentControl++;
    this.#outbox.send(frame);
    return true;
  }

  close(code: string, reason: string): void {
    this.#outbox.flush();
    this.#end({ by: 'us', code, reason });
  }

  abort(code: string, reason: string): void {
    this.#outbox.drop();
    this.#end({ by: 'us', code, reason });
  }

  destroy(code: string, reason: string): void {
    this.#socket.destroy();
    this.#end({ by: 'us', code, reason });
  }

  readonly #onChunk = (chunk: Buffer): void => {
    if (this.#phase === 'ended') return;
    this.#heard = true;
    const fault = this.#decoder.push(chunk, this.#onFrame);
    if (fault !== FrameFault.None) {
      const what = fault === FrameFault.BadType ? 'type' : 'length';
      this.abort(CloseCode.ProtocolError, `a frame has a ${what} that is not allowed here`);
    }
    this.#owner.onBatchEnd();
  };

  readonly #onFrame = (type: number, buffer: Buffer, start: number, end: number): boolean => {
    if (type === FrameType.Packet) {
      this.#counters.receivedPackets++;
      this.#counters.receivedBytes += end - start;
      this.#owner.onPacket(buffer, start, end);
    } else if (type === FrameType.Ping) {
      const pong = pingFrame(FrameType.Pong);
      buffer.copy(pong, FRAME_HEADER_LENGTH, start, end);
      this.#outbox.sendPong(pong);
    } else if (type === FrameType.Pong) {
      // Any other than the answer to our last PING is late or made up.
      if (this.#ping.compare(buffer, start, end) === 0) {
        this.rttMs = this.#options.timers.now() - this.#pingSentMs;
      }
    } else {
      this.#onMessage(type, parseJson(buffer, start, end));
    }
    return this.#phase !== 'ended';
  };

  #onMessage(type: number, message: Json | undefined): void {
    if (message === undefined) {
      this.abort(CloseCode.ProtocolError, 'a message is not JSON in UTF-8');
    } else if (type === FrameType.Control) {
      this.#onControl(message);
    } else if (type === FrameType.Close) {
      this.#onClose(message);
    } else {
      const fault = this.#owner.onHandshake(message);
      if (fault !== undefined) this.abort(CloseCode.ProtocolError, fault);
    }
  }

  #onControl(message: Json): void {
    const { maxControlRate, timers } = this.#options;
    const nowMs = timers.now();
    if (nowMs - this.#controlWindowMs >= CONTROL_WINDOW_MS) {
      this.#controlWindowMs = nowMs;
      this.#controlInWindow = 0;
    }
    this.#controlInWindow++;
    if (this.#controlInWindow * 1000 > maxControlRate * CONTROL_WINDOW_MS) {
      this.abort(CloseCode.ProtocolError, `more than ${maxControlRate} control messages a second`);
      return;
    }
    this.#counters.receivedControl++;
    this.#owner.onControl(message);
  }

  #onClose(message: Json): void {
    const close = readClose(message);
    if (close === undefined) {
      this.abort(CloseCode.ProtocolError, 'the CLOSE is malformed');
      return;
    }
    this.#outbox.drop();
    this.#end({ by: 'peer', ...close });
  }

  readonly #onTick = (): void => {
    // Counted in ticks, not in time: when this process itself stood still, that is one tick.
    this.#silentTicks = this.#heard ? 0 : this.#silentTicks + 1;
    this.#heard = false;
    if (this.#silentTicks >= DEAD_AFTER_TICKS) {
      const reason = `nothing came from the peer for ${DEAD_AFTER_TICKS * this.#keepaliveMs} ms`;
      this.#socket.destroy();
      this.#end({ by: 'network', code: CloseCode.KeepaliveTimeout, reason });
      return;
    }
    this.#options.pool.trim(this.#options.timers.now());
    this.#sendPing();
    this.#cancelTimer = this.#options.timers.after(this.#keepaliveMs, this.#onTick);
  };

  #sendPing(): void {
    // A peer that does not read is sent no more.
    if (this.#outbox.messageBytes > 0) return;
    this.#pingSentMs = this.#options.timers.now();
    this.#ping.writeDoubleBE(this.#pingSentMs);
    const frame = pingFrame(FrameType.Ping);
    this.#ping.copy(frame, FRAME_HEADER_LENGTH);
    this.#outbox.send(frame);
  }

  /** Stops all delivery at once. What is still to be sent gets `LINGER_MS`. */
  #end(cause: CloseCause): void {
    if (this.#phase === 'ended') return;
    this.#phase = 'ended';
    this.#cancelTimer();
    if (!this.#socket.destroyed) {
      this.#cancelTimer = this.#options.timers.after(LINGER_MS, () => this.#socket.destroy());
      const { by, code, reason } = cause;
      this.#outbox.end(by === 'us' ? jsonFrame(FrameType.Close, { code, reason }) : undefined);
    }
    this.#owner.onLaneClosed(cause);
  }
}

function pingFrame(type: FrameType): Buffer {
  const frame = Buffer.alloc(FRAME_HEADER_LENGTH + PING_LENGTH);
  writeFrameHeader(frame, 0, type, PING_LENGTH);
  return frame;
}

function lost(reason: string): CloseCause {
  return { by: 'network', code: CloseCode.ConnectionLost, reason };
}

/** How long a lane that ends may take to send what is queued, in ms. */
const LINGER_MS = 2_000;
/** Keepalive intervals without any byte after which a peer is taken for dead. */
const DEAD_AFTER_TICKS = 3;
/** Over how long the rate of control messages is averaged, in ms: bursts pass. */
const CONTROL_WINDOW_MS = 10_000;
