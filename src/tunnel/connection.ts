/**
 * A connection over one TLS connection, and the conversation on it: handshake, keepalive, close. What goes
 * out passes through an `Outbox`.
 *
 * A packet's way in: the connection is read into the decoder's space (`socket-reader.ts`),
 * `FrameDecoder` finds the packet there, `onPacket` takes it where it lies, `onBatchEnd` follows each
 * piece that was read.
 * @module
 */
import type { TLSSocket } from 'node:tls';
import { ApiMisuseError } from '../errors.ts';
import type { Json } from '../store/store.ts';
import type {
  CloseCause,
  Connection,
  ConnectionCounters,
  ConnectionOptions,
  ConnectionOwner,
} from './connection-types.ts';
import {
  drainedLimits,
  FRAME_HEADER_LENGTH,
  FrameFault,
  FrameType,
  handshakeLimits,
  openLimits,
  PING_LENGTH,
  waitingLimits,
  writeFrameHeader,
} from './frame.ts';
import { FrameDecoder } from './frame-decoder.ts';
import {
  type Close,
  CloseCode,
  closeFrame,
  type Hello,
  jsonFrame,
  parseJson,
  printable,
  readClose,
  type Welcome,
} from './messages.ts';
import { Commit, Outbox } from './outbox.ts';
import { readInto } from './socket-reader.ts';

export class TunnelConnection implements Connection {
  rttMs: number | undefined;
  readonly gone: Promise<void>;
  readonly #socket: TLSSocket;
  #owner: ConnectionOwner;
  readonly #options: ConnectionOptions;
  #counters: ConnectionCounters;
  readonly #decoder: FrameDecoder;
  readonly #outbox: Outbox;
  #phase: 'handshake' | 'up' | 'ended' = 'handshake';
  #keepaliveMs = 0;
  #cancelTimer: () => void = () => {};
  #heard = false;
  #silentTicks = 0;
  #pingSentMs = 0;
  readonly #ping: Buffer = Buffer.alloc(PING_LENGTH);
  #isDraining = false;
  /** What waited is not sent any more. */
  #isDropped = false;
  /** Control messages that are not to be sent yet; undefined if they go at once. */
  #held: Buffer[] | undefined;
  #heldBytes = 0;

  /** Serves a connection whose TLS handshake is done and checked; `first` is the frame to expect. */
  constructor(
    socket: TLSSocket,
    first: FrameType,
    owner: ConnectionOwner,
    options: ConnectionOptions
  ) {
    this.#socket = socket;
    this.#owner = owner;
    this.#options = options;
    this.#counters = owner.counters;
    this.#decoder = new FrameDecoder(handshakeLimits(first), options.pool);
    const { pool, clock, limitUnsent } = options;
    this.#outbox = new Outbox(socket, {
      pool,
      budget: {
        take: (held) => this.#owner.budget.take(held),
        give: () => this.#owner.budget.give(),
      },
      clock,
      onDrain: () => {
        if (this.#phase === 'up') this.#owner.onDrain();
      },
      ...(limitUnsent === undefined
        ? {}
        : { onPace: (bytes: number) => limitUnsent(socket, UNSENT_CHUNKS * bytes) }),
    });
    socket.setNoDelay(true);
    const decoder = this.#decoder;
    readInto(socket, {
      get space() {
        return decoder.space;
      },
      onFilled: (count) => {
        if (this.#hear()) this.#onDecoded(decoder.filled(count, this.#onFrame));
      },
      onPiece: (piece) => {
        if (this.#hear()) this.#onDecoded(decoder.push(piece, this.#onFrame));
      },
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#end({ ...lost(printable(error.message)), errorCode: error.code });
    });
    socket.on('end', () => this.#end(lost('the peer ended the connection')));
    this.gone = new Promise((resolve) => {
      socket.on('close', () => {
        this.#end(lost('the connection was closed'));
        this.#cancelTimer();
        this.#outbox.free();
        this.#decoder.free();
        resolve();
      });
    });
  }

  get buffer(): Buffer {
    return this.#outbox.buffer;
  }

  get waitMs(): number {
    return this.#outbox.waitMs;
  }

  /** It takes nothing any more, but sends what waits. */
  get isClosing(): boolean {
    return this.#phase === 'ended' && !this.#isDropped;
  }

  /** Serves another owner from now on. */
  handTo(owner: ConnectionOwner): void {
    this.#owner = owner;
    this.#counters = owner.counters;
  }

  /** Sends HELLO or WELCOME. */
  sendHandshake(type: FrameType, message: Hello | Welcome): void {
    this.#outbox.send(jsonFrame(type, message));
  }

  /** The peer has to wait for an answer to its HELLO: it may send nothing until then but a CLOSE. */
  awaitAnswer(): void {
    this.#decoder.limits = waitingLimits();
  }

  /** Lets packets and control messages through, and begins to send PING. */
  becomeUp(keepaliveMs: number): void {
    this.#phase = 'up';
    this.#decoder.limits = openLimits(this.#options.maxReceivedControlBytes);
    this.#keepaliveMs = keepaliveMs;
    this.#sendPing();
    this.#cancelTimer = this.#options.clock.after(keepaliveMs, this.#onTick);
  }

  reserve(): number {
    return this.#phase === 'up' && !this.#isDraining ? this.#outbox.reserve() : -1;
  }

  commit(type: FrameType, payloadLength: number): boolean {
    const outcome = this.#outbox.commit(type, payloadLength);
    if (outcome === Commit.Taken) {
      this.#counters.sentPackets++;
      this.#counters.sentBytes += payloadLength;
      return true;
    }
    if (outcome === Commit.Full) this.#counters.droppedFull++;
    else this.#counters.droppedLate++;
    return false;
  }

  flush(): void {
    this.#outbox.flush();
  }

  sendControl(message: Json): boolean {
    const { maxControlBytes, maxControlQueueBytes } = this.#options;
    if (this.#phase !== 'up' || this.#isDraining) return false;
    const frame = jsonFrame(FrameType.Control, message);
    const length = frame.length - FRAME_HEADER_LENGTH;
    if (length > maxControlBytes) {
      throw new ApiMisuseError(
        `a control message of ${length} bytes is longer than the ${maxControlBytes} allowed`
      );
    }
    const waiting = this.#outbox.messageBytes + this.#heldBytes;
    if (waiting + frame.length > maxControlQueueBytes) {
      this.#counters.refusedControl++;
      return false;
    }
    this.#counters.sentControl++;
    if (this.#held === undefined) {
      this.#outbox.send(frame);
    } else {
      this.#held.push(frame);
      this.#heldBytes += frame.length;
    }
    return true;
  }

  /** Keeps control messages back until `releaseControl`. */
  holdControl(): void {
    this.#held ??= [];
  }

  releaseControl(): void {
    const frames = this.#held ?? [];
    this.#held = undefined;
    this.#heldBytes = 0;
    for (const frame of frames) this.#outbox.send(frame);
  }

  drain(): void {
    if (this.#phase !== 'up' || this.#isDraining) return;
    this.#isDraining = true;
    this.#outbox.flush();
    const frame = Buffer.alloc(FRAME_HEADER_LENGTH);
    writeFrameHeader(frame, 0, FrameType.Drain, 0);
    this.#outbox.sendBehind(frame);
  }

  close(close: Close, after?: Promise<unknown>): void {
    this.#outbox.flush();
    this.#end({ ...close, by: 'us' }, after);
  }

  abort(close: Close): void {
    this.#drop();
    this.#end({ ...close, by: 'us' });
  }

  destroy(code: string, reason: string): void {
    this.#socket.destroy();
    this.#end({ by: 'us', code, reason });
  }

  /** Something came; returns whether it matters any more. */
  #hear(): boolean {
    this.#heard = true;
    return this.#phase !== 'ended';
  }

  #onDecoded(fault: FrameFault): void {
    if (fault !== FrameFault.None) {
      const what = fault === FrameFault.BadType ? 'type' : 'length';
      this.#abuse(`a frame has a ${what} that is not allowed here`);
    }
    this.#owner.onBatchEnd();
  }

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
        this.rttMs = this.#options.clock.monotonicMs() - this.#pingSentMs;
      }
    } else if (type === FrameType.Drain) {
      this.#decoder.limits = drainedLimits(this.#options.maxReceivedControlBytes);
      const fault = this.#owner.onPeerDrained();
      if (fault !== undefined) this.#abuse(fault);
    } else {
      this.#onMessage(type, parseJson(buffer, start, end), end - start);
    }
    return this.#phase !== 'ended';
  };

  #onMessage(type: number, message: Json | undefined, bytes: number): void {
    if (message === undefined) {
      this.#abuse('a message is not JSON in UTF-8');
    } else if (type === FrameType.Control) {
      const refusal = this.#owner.onControl(message, bytes);
      if (refusal !== undefined) this.abort(refusal);
    } else if (type === FrameType.Close) {
      this.#onClose(message);
    } else {
      const fault = this.#owner.onHandshake(message);
      if (fault !== undefined) this.#abuse(fault);
    }
  }

  #onClose(message: Json): void {
    const close = readClose(message);
    if (close === undefined) {
      this.#abuse('the CLOSE is malformed');
      return;
    }
    this.#drop();
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
    this.#options.pool.trim(this.#options.clock.monotonicMs());
    this.#sendPing();
    this.#cancelTimer = this.#options.clock.after(this.#keepaliveMs, this.#onTick);
  };

  #sendPing(): void {
    // A peer that does not read is sent no more.
    if (this.#outbox.messageBytes > 0) return;
    this.#pingSentMs = this.#options.clock.monotonicMs();
    this.#ping.writeDoubleBE(this.#pingSentMs);
    const frame = pingFrame(FrameType.Ping);
    this.#ping.copy(frame, FRAME_HEADER_LENGTH);
    this.#outbox.send(frame);
  }

  #abuse(reason: string): void {
    this.abort({ code: CloseCode.ProtocolError, reason });
  }

  #drop(): void {
    this.#isDropped = true;
    this.#held = undefined;
    this.#outbox.drop();
  }

  /** Stops all delivery at once. What is still to be sent gets `LINGER_MS`. */
  #end(cause: CloseCause, after?: Promise<unknown>): void {
    if (this.#phase === 'ended') return;
    this.#phase = 'ended';
    this.#cancelTimer();
    if (!this.#socket.destroyed) {
      this.#cancelTimer = this.#options.clock.after(LINGER_MS, () => this.#socket.destroy());
      const finish = (): void => {
        this.releaseControl();
        this.#outbox.end(cause.by === 'us' ? closeFrame(cause) : undefined);
      };
      if (after === undefined) finish();
      else void after.then(finish);
    }
    this.#owner.onConnectionClosed(cause);
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

/** What the system keeps unsent, in writes: one is on its way while the next is made. */
const UNSENT_CHUNKS = 2;
/** How long a connection that ends may take to send what is queued, in ms. */
const LINGER_MS = 2_000;
/** Keepalive intervals without any byte after which a peer is taken for dead. */
const DEAD_AFTER_TICKS = 3;
