/**
 * One TLS connection of a tunnel and the conversation on it: handshake, DRAIN, CLOSE; `keepalive.ts` says when its peer
 * is dead. README.md draws its states, and the path of a frame through it.
 * @module
 */
import type { TLSSocket } from 'node:tls';
import { EventEmitter } from 'eventemitter3';
import { ApiMisuseError } from '../errors.ts';
import type { Json } from '../store/store.ts';
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
import { DEAD_AFTER, Keepalive, type Progress } from './keepalive.ts';
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
import type { ConnectionOptions } from './options.ts';
import { Commit, Outbox } from './outbox.ts';
import { SlabBudget } from './slab-pool.ts';
import { readInto } from './socket-reader.ts';
import { type CloseCause, type ConnectionCounters, newConnectionCounters } from './tunnel.ts';

export interface ConnectionEvents {
  /** HELLO or WELCOME has come. Whoever finds it wrong calls `failProtocol`. */
  handshake: [message: Json];
  /** A control message of `bytes` bytes has come. */
  control: [control: { readonly message: Json; readonly bytes: number }];
  /** DRAIN has come: the peer puts no packets or control messages on this connection any more. */
  drained: [];
  /** The peer is silent while the connection is used, and was sent a PING. */
  silent: [];
  /** Emitted once. The connection takes and delivers nothing any more. */
  closed: [cause: CloseCause];
}

export class TunnelConnection extends EventEmitter<ConnectionEvents> {
  onPacket: (buffer: Buffer, start: number, end: number) => void = ignore;
  /** Called after everything that was read at once. */
  onBatchEnd: () => void = ignore;
  /** Called once after `reserve` returned -1, when there is space again. */
  onDrain: () => void = ignore;
  /** Resolves when the socket is closed and all memory is given back. */
  readonly gone: Promise<void>;
  readonly #socket: TLSSocket;
  readonly #options: ConnectionOptions;
  #counters: ConnectionCounters = newConnectionCounters();
  readonly #decoder: FrameDecoder;
  readonly #outbox: Outbox;
  #phase: 'handshake' | 'up' | 'ended' = 'handshake';
  readonly #keepalive: Keepalive;
  #cancelTimer: () => void = () => {};
  #isDraining = false;
  /** Whether the system looks often for a silent peer. */
  #isBounded = false;
  /** What waited is not sent any more. */
  #isDropped = false;
  /** Control messages that are not to be sent yet; undefined if they go at once. */
  #held: Buffer[] | undefined;
  #heldBytes = 0;

  /**
   * @param socket whose TLS handshake is done, and whose peer is verified
   * @param first the frame that the peer has to begin with
   */
  constructor(socket: TLSSocket, first: FrameType, options: ConnectionOptions) {
    super();
    this.#socket = socket;
    this.#options = options;
    this.#decoder = new FrameDecoder(handshakeLimits(first), options.pool);
    const { pool, clock, tcp } = options;
    this.#outbox = new Outbox(socket, {
      pool,
      budget: NO_BUDGET,
      clock,
      onDrain: () => {
        if (this.#phase === 'up') this.onDrain();
      },
      ...(tcp === undefined
        ? {}
        : { onPace: (bytes: number) => tcp.limitUnsent(socket, NOT_SENT_CHUNKS * bytes) }),
    });
    this.#keepalive = new Keepalive({
      clock,
      send: (frame) => this.#outbox.send(frame),
      isBlocked: () => this.#outbox.messageBytes > 0,
      isPending: () => this.#outbox.isMessagePending,
      progress: () => this.#progress(),
      onSilent: () => this.emit('silent'),
      onDead: (reason) => this.#onDead(reason),
      onTick: () => pool.trim(clock.monotonicMs()),
    });
    socket.setNoDelay(true);
    const decoder = this.#decoder;
    readInto(socket, {
      get space() {
        return decoder.space;
      },
      onFilled: (count) => {
        if (this.#noteArrival()) this.#onDecoded(decoder.filled(count, this.#onFrame));
      },
      onPiece: (piece) => {
        if (this.#noteArrival()) this.#onDecoded(decoder.push(piece, this.#onFrame));
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

  /** Round-trip time of the last PING that was answered, in ms. */
  get rttMs(): number | undefined {
    return this.#keepalive.rttMs;
  }

  /** The slab that `reserve` pointed into. */
  get buffer(): Buffer {
    return this.#outbox.buffer;
  }

  /** How long the packet that is sent next has waited, in ms. */
  get waitMs(): number {
    return this.#outbox.waitMs;
  }

  /** Whether it takes nothing any more, but still sends what waits. */
  get isClosing(): boolean {
    return this.#phase === 'ended' && !this.#isDropped;
  }

  /** Makes it a connection of a tunnel, whose connections share the counters and the slabs. */
  joinTunnel(counters: ConnectionCounters, budget: SlabBudget): void {
    this.#counters = counters;
    this.#outbox.budget = budget;
    if (!this.#isBounded) counters.unboundedRetransmission++;
  }

  /** Sends HELLO or WELCOME. */
  sendHandshake(type: FrameType, message: Hello | Welcome): void {
    this.#outbox.send(jsonFrame(type, message));
  }

  /** Allows the peer only a CLOSE until its HELLO is answered. */
  awaitAnswer(): void {
    this.#decoder.limits = waitingLimits();
  }

  /** Lets packets and control messages through, and begins to send PING. */
  becomeUp(keepaliveMs: number): void {
    if (this.#phase !== 'handshake') return;
    this.#phase = 'up';
    this.#decoder.limits = openLimits(this.#options.maxReceivedControlBytes);
    // The keepalive decides when the peer is dead, not the system.
    const giveUpMs = 2 * DEAD_AFTER * keepaliveMs;
    this.#isBounded =
      this.#options.tcp?.boundRetransmission(this.#socket, MAX_SILENCE_MS, giveUpMs) ?? false;
    this.#keepalive.start(keepaliveMs);
  }

  /**
   * Returns the offset in `buffer` where the payload of the next frame may be written; there are `MAX_PACKET_PAYLOAD`
   * bytes of space. Returns -1 when the connection is not up, or holds as much as it may: then `onDrain` will be
   * called. The offset holds until the next call of another method, or the return to the event loop.
   */
  reserve(): number {
    return this.#phase === 'up' && !this.#isDraining ? this.#outbox.reserve() : -1;
  }

  /**
   * Makes a frame of the `payloadLength` bytes that were written where `reserve` said. Returns false, and counts it, if
   * the packet is dropped because too much waits already.
   */
  commit(type: FrameType, payloadLength: number): boolean {
    const outcome = this.#outbox.commit(type, payloadLength);
    this.#keepalive.used();
    if (outcome === Commit.Taken) {
      this.#counters.sentPackets++;
      this.#counters.sentBytes += payloadLength;
      return true;
    }
    if (outcome === Commit.Full) this.#counters.droppedFull++;
    else this.#counters.droppedLate++;
    return false;
  }

  /** Sends what was committed, now or as soon as the socket has taken what it has. */
  flush(): void {
    this.#outbox.flush();
  }

  /**
   * Sends a message before all packets that wait. Returns false when the connection is not up, or too many messages
   * wait.
   *
   * @throws {ApiMisuseError} if the message is longer than `maxControlBytes`.
   */
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
    this.#keepalive.used();
    if (this.#held === undefined) {
      this.#outbox.send(frame);
    } else {
      this.#held.push(frame);
      this.#heldBytes += frame.length;
    }
    return true;
  }

  /** Holds control messages back until `releaseControl`. */
  holdControl(): void {
    this.#held ??= [];
  }

  releaseControl(): void {
    const frames = this.#held ?? [];
    this.#held = undefined;
    this.#heldBytes = 0;
    for (const frame of frames) this.#outbox.send(frame);
  }

  /**
   * Measures the round-trip time now, apart from the keepalive. Resolves with it in ms, or with undefined if no answer
   * comes in `timeoutMs`, the connection is not up, or the peer does not read. A call during another one gets the same
   * result.
   */
  measure(timeoutMs: number): Promise<number | undefined> {
    return this.#keepalive.measure(timeoutMs);
  }

  /**
   * Asks the peer for an answer. Resolves with true as soon as anything comes from it, and with false if the connection
   * ends first: it does if three PINGs, one every 300 ms, are not answered.
   */
  isAlive(): Promise<boolean> {
    return this.#keepalive.isAlive();
  }

  /** Takes nothing any more, sends what waits, then DRAIN. What the peer sends is still delivered. */
  drain(): void {
    if (this.#phase !== 'up' || this.#isDraining) return;
    this.#isDraining = true;
    this.#outbox.flush();
    const frame = Buffer.alloc(FRAME_HEADER_LENGTH);
    writeFrameHeader(frame, 0, FrameType.Drain, 0);
    this.#outbox.sendLast(frame);
  }

  /** Takes and delivers nothing any more, sends what waits, then, once `after` has resolved, CLOSE. */
  close(close: Close, after?: Promise<unknown>): void {
    this.#outbox.flush();
    this.#end({ ...close, by: 'us' }, after);
  }

  /** Takes and delivers nothing any more, drops what waits, and sends CLOSE. */
  abort(close: Close): void {
    this.#drop();
    this.#end({ ...close, by: 'us' });
  }

  /** Ends the connection because the peer broke the protocol. */
  failProtocol(reason: string): void {
    this.abort({ code: CloseCode.ProtocolError, reason });
  }

  /** Ends the connection at once, and sends the peer nothing. */
  destroy(code: string, reason: string): void {
    this.#socket.destroy();
    this.#end({ by: 'us', code, reason });
  }

  /** Notes for the keepalive that something came. Returns whether it is still to be decoded. */
  #noteArrival(): boolean {
    this.#keepalive.heard();
    return this.#phase !== 'ended';
  }

  #onDecoded(fault: FrameFault): void {
    if (fault !== FrameFault.None) {
      const what = fault === FrameFault.BadType ? 'type' : 'length';
      this.failProtocol(`a frame has a ${what} that is not allowed here`);
    }
    this.onBatchEnd();
  }

  readonly #onFrame = (type: number, buffer: Buffer, start: number, end: number): boolean => {
    if (type === FrameType.Packet) {
      this.#counters.receivedPackets++;
      this.#counters.receivedBytes += end - start;
      this.#keepalive.used();
      this.onPacket(buffer, start, end);
    } else if (type === FrameType.Ping) {
      const pong = Buffer.alloc(FRAME_HEADER_LENGTH + PING_LENGTH);
      writeFrameHeader(pong, 0, FrameType.Pong, PING_LENGTH);
      buffer.copy(pong, FRAME_HEADER_LENGTH, start, end);
      this.#outbox.sendPong(pong);
    } else if (type === FrameType.Pong) {
      this.#keepalive.pong(buffer, start);
    } else if (type === FrameType.Drain) {
      this.#decoder.limits = drainedLimits(this.#options.maxReceivedControlBytes);
      this.emit('drained');
    } else {
      this.#onMessage(type, parseJson(buffer, start, end), end - start);
    }
    return this.#phase !== 'ended';
  };

  #onMessage(type: number, message: Json | undefined, bytes: number): void {
    if (message === undefined) {
      this.failProtocol('a message is not JSON in UTF-8');
    } else if (type === FrameType.Control) {
      this.#keepalive.used();
      this.emit('control', { message, bytes });
    } else if (type === FrameType.Close) {
      this.#onClose(message);
    } else {
      this.emit('handshake', message);
    }
  }

  #onClose(message: Json): void {
    const close = readClose(message);
    if (close === undefined) {
      this.failProtocol('the CLOSE is malformed');
      return;
    }
    this.#drop();
    this.#end({ by: 'peer', ...close });
  }

  #onDead(reason: string): void {
    this.#socket.destroy();
    this.#end({ by: 'network', code: CloseCode.KeepaliveTimeout, reason });
  }

  /** What the peer's system has acknowledged, or if that is not known, what the own system has taken. */
  #progress(): Progress {
    const { writtenBytes } = this.#outbox;
    return (
      this.#options.tcp?.sendProgress(this.#socket) ?? { done: writtenBytes, end: writtenBytes }
    );
  }

  #drop(): void {
    this.#isDropped = true;
    this.#held = undefined;
    this.#outbox.drop();
  }

  /** Stops delivery at once. What is still to be sent has `LINGER_MS`. */
  #end(cause: CloseCause, after?: Promise<unknown>): void {
    if (this.#phase === 'ended') return;
    this.#phase = 'ended';
    this.#keepalive.stop();
    if (!this.#socket.destroyed) {
      this.#cancelTimer = this.#options.clock.after(LINGER_MS, () => this.#socket.destroy());
      const finish = (): void => {
        this.releaseControl();
        this.#outbox.end(cause.by === 'us' ? closeFrame(cause) : undefined);
      };
      if (after === undefined) finish();
      else void after.then(finish);
    }
    this.emit('closed', cause);
  }
}

function ignore(): void {}

function lost(reason: string): CloseCause {
  return { by: 'network', code: CloseCode.ConnectionLost, reason };
}

/** Before a connection is part of a tunnel it sends no packets. */
const NO_BUDGET: SlabBudget = new SlabBudget(0);
/** What the system keeps before it is sent, in writes: one is on its way while the next is made. */
const NOT_SENT_CHUNKS = 2;
/** How long the system waits before it sends again what was not acknowledged, in ms, at most; Linux takes no less. */
const MAX_SILENCE_MS = 1_000;
/** How long a connection that ends may take to send what is queued, in ms. */
const LINGER_MS = 2_000;
