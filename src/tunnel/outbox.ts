/**
 * What a connection has to send: packets, collected in slabs that the sender fills in place, and messages,
 * which overtake them.
 *
 * The path of a packet out:
 * 1. `reserve()` returns where in `buffer` its bytes may be written, or that no slab is available
 * 2. the caller writes them there, and `commit()` puts the frame header in front, unless packets wait
 *    too long already (`codel.ts`)
 * 3. `flush()` marks all that was committed, and writes it unless the socket is busy
 * 4. one write at a time goes to the socket: PONG, then messages, then the marked part of the oldest
 *    slab, as much of it as the socket takes in a moment (`#chunk`). So a message waits for little,
 *    and TLS gets one piece of memory, which it need not copy together first. The frame of `sendLast`
 *    goes when nothing else is left
 * 5. when the socket has taken it, an empty slab goes back to the pool, and `onDrain` is called if
 *    `reserve` had returned -1
 * @module
 */
import type { Writable } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import { CoDel, QueueAge } from './codel.ts';
import {
  FRAME_HEADER_LENGTH,
  type FrameType,
  frameLength,
  MAX_PACKET_PAYLOAD,
  writeFrameHeader,
} from './frame.ts';
import type { Slab, SlabBudget, SlabPool } from './slab-pool.ts';

/** The outcome of `commit`. */
export const Commit = {
  Taken: 0,
  /** Dropped: the connection holds as much as it may, and has done so for long. */
  Full: 1,
  /** Dropped so that the others wait less. */
  Late: 2,
} as const;
export type Commit = (typeof Commit)[keyof typeof Commit];

export interface OutboxOptions {
  readonly pool: SlabPool;
  readonly budget: Pick<SlabBudget, 'take' | 'give'>;
  readonly clock: Clock;
  /** Called once after `reserve` returned -1, when there is space again. */
  readonly onDrain: () => void;
  /** Called with the number of bytes that the socket takes in a moment, at once and when it has changed. */
  readonly onPace?: (bytes: number) => void;
}

export class Outbox {
  /** The slab that `reserve` pointed into. */
  buffer: Buffer = EMPTY;
  /** May be replaced while no slab is held. */
  budget: OutboxOptions['budget'];
  readonly #socket: Writable;
  readonly #pool: SlabPool;
  readonly #options: OutboxOptions;
  readonly #clock: Clock;
  readonly #age: QueueAge = new QueueAge();
  readonly #codel: CoDel = new CoDel();
  #nowMs = 0;
  /** What the socket has taken in the current window, and when that began. */
  #takenBytes = 0;
  #takenSinceMs = 0;
  #lastTakenMs = 0;
  /** Bytes of packets in one write, at most, except for one longer packet. */
  #chunk: number;
  /** Oldest first; the last one is being filled, unless `#current` is undefined. */
  readonly #slabs: Slab[] = [];
  #current: Slab | undefined;
  readonly #messages: Buffer[] = [];
  #messageBytes = 0;
  #writtenBytes = 0;
  /** The length of the write that is under way. */
  #writingBytes = 0;
  #pong: Buffer | undefined;
  /** Is sent when nothing else waits. */
  #last: Buffer | undefined;
  /** Ends the stream. */
  #closing: Buffer | undefined;
  #isWriting = false;
  /** While a part of the oldest slab is being written, where that part ends; otherwise 0. */
  #writingTo = 0;
  #wasRefused = false;

  constructor(socket: Writable, options: OutboxOptions) {
    this.#socket = socket;
    this.#pool = options.pool;
    this.#options = options;
    this.budget = options.budget;
    this.#clock = options.clock;
    this.#chunk = MIN_CHUNK;
    options.onPace?.(MIN_CHUNK);
  }

  /** Bytes of packets that wait, frame headers included. */
  get packetBytes(): number {
    return this.#age.bytes;
  }

  /** How long the packet that is sent next has waited, in ms. */
  get waitMs(): number {
    return this.#age.waitMs(this.#clock.monotonicMs());
  }

  /** Bytes of messages that wait. */
  get messageBytes(): number {
    return this.#messageBytes;
  }

  /** Whether the socket has not taken all messages. */
  get isMessagePending(): boolean {
    return this.#messageBytes > 0 || (this.#isWriting && this.#writingTo === 0);
  }

  /** Bytes that the socket has taken, cumulative. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** See `TunnelConnection.reserve`. */
  reserve(): number {
    let slab = this.#current;
    if (slab === undefined || !hasSpace(slab)) {
      slab = this.#nextSlab();
      if (slab === undefined) return -1;
    }
    return slab.head + FRAME_HEADER_LENGTH;
  }

  /** Makes a frame of what was written where `reserve` said, or drops it. */
  commit(type: FrameType, payloadLength: number): Commit {
    const slab = this.#current!;
    if (slab === this.#pool.sink) return Commit.Full;
    const waitMs = this.#age.bytes > MAX_PACKET_PAYLOAD ? this.#age.waitMs(this.#nowMs) : 0;
    if (this.#codel.isTooLate(this.#nowMs, waitMs)) return Commit.Late;
    writeFrameHeader(slab.buffer, slab.head, type, payloadLength);
    const length = FRAME_HEADER_LENGTH + payloadLength;
    slab.head += length;
    this.#age.add(length, this.#nowMs);
    if (!hasSpace(slab)) this.flush();
    return Commit.Taken;
  }

  /** Sends what was committed, as soon as the socket is free. */
  flush(): void {
    this.#nowMs = this.#clock.monotonicMs();
    const slab = this.#current;
    if (slab === undefined) return;
    if (slab === this.#pool.sink) this.#leaveCurrent();
    slab.flushed = slab.head;
    this.#pump();
  }

  /** Sends a frame before all packets that wait, in the order of the calls. */
  send(frame: Buffer): void {
    this.#messages.push(frame);
    this.#messageBytes += frame.length;
    this.#pump();
  }

  /** Sends a frame before all that waits. It replaces another PONG that waits. */
  sendPong(frame: Buffer): void {
    this.#pong = frame;
    this.#pump();
  }

  /** Sends a frame when nothing else waits any more. The caller commits nothing after it. */
  sendLast(frame: Buffer): void {
    this.#last = frame;
    this.#pump();
  }

  /** Sends what was flushed, then `frame` if there is one, then ends the stream. */
  end(frame: Buffer = EMPTY): void {
    this.#closing = frame;
    this.#pump();
  }

  /** Drops what waits, except what the socket is taking now. */
  drop(): void {
    this.#pong = undefined;
    this.#last = undefined;
    this.#messages.length = 0;
    this.#messageBytes = 0;
    const busy = this.#writingTo > 0 ? this.#slabs[0] : undefined;
    if (busy !== undefined) busy.flushed = busy.head = this.#writingTo;
    for (const slab of this.#slabs.splice(busy === undefined ? 0 : 1)) this.#give(slab);
    this.#age.clear(busy === undefined ? 0 : this.#writingTo - busy.sent);
    if (this.#current !== busy) this.#leaveCurrent();
  }

  /** Gives all slabs back, once the socket is gone and uses none any more. */
  free(): void {
    this.#isWriting = true;
    this.#writingTo = 0;
    this.drop();
  }

  #nextSlab(): Slab | undefined {
    this.#nowMs = this.#clock.monotonicMs();
    let slab: Slab;
    if (this.budget.take(this.#slabs.length)) {
      slab = this.#pool.take();
      this.#slabs.push(slab);
    } else if (this.#age.waitMs(this.#nowMs) > LONG_WAIT_MS) {
      // The connection is slow. If the caller waited, another queue would grow at its side.
      slab = this.#pool.sink;
    } else {
      this.#wasRefused = true;
      return undefined;
    }
    this.#current = slab;
    this.buffer = slab.buffer;
    return slab;
  }

  /** Begins the next write, if none is under way and anything waits. */
  #pump(): void {
    if (this.#isWriting) return;
    let bytes = this.#pong;
    this.#pong = undefined;
    if (bytes === undefined) {
      bytes = this.#messages.shift();
      this.#messageBytes -= bytes?.length ?? 0;
    }
    bytes ??= this.#nextOfSlab() ?? this.#takeLast();
    if (bytes !== undefined) {
      this.#isWriting = true;
      this.#writingBytes = bytes.length;
      if (this.#nowMs - this.#lastTakenMs > PACE_WINDOW_MS) {
        this.#takenBytes = 0;
        this.#takenSinceMs = this.#nowMs;
      }
      this.#socket.write(bytes, this.#onWritten);
    } else if (this.#closing !== undefined) {
      this.#isWriting = true;
      this.#socket.end(this.#closing);
    }
  }

  #nextOfSlab(): Buffer | undefined {
    const slab = this.#slabs[0];
    if (slab === undefined) return undefined;
    if (slab.sent === slab.flushed) {
      if (slab.sent === slab.head) this.#release(slab);
      return undefined;
    }
    this.#writingTo = this.#chunkEnd(slab);
    return slab.buffer.subarray(slab.sent, this.#writingTo);
  }

  #takeLast(): Buffer | undefined {
    const frame = this.#last;
    this.#last = undefined;
    return frame;
  }

  /** Returns where the frames of one write end. */
  #chunkEnd({ buffer, sent, flushed }: Slab): number {
    if (flushed - sent <= this.#chunk) return flushed;
    let end = sent + frameLength(buffer, sent);
    while (end - sent < this.#chunk) end += frameLength(buffer, end);
    return end;
  }

  readonly #onWritten = (error?: Error | null): void => {
    if (error) return;
    this.#isWriting = false;
    this.#writtenBytes += this.#writingBytes;
    this.#nowMs = this.#clock.monotonicMs();
    const slab = this.#slabs[0];
    if (slab !== undefined && this.#writingTo > 0) {
      const length = this.#writingTo - slab.sent;
      slab.sent = this.#writingTo;
      this.#writingTo = 0;
      this.#age.remove(length);
      this.#measurePace(length);
      // The slab that is being filled too, if all of it is sent: an idle connection holds no slab.
      if (slab.sent === slab.head) this.#release(slab);
    }
    this.#pump();
  };

  /** Sets the chunk to what the socket takes in `CHUNK_MS`, averaged over `PACE_WINDOW_MS`. */
  #measurePace(length: number): void {
    this.#takenBytes += length;
    this.#lastTakenMs = this.#nowMs;
    const tookMs = this.#nowMs - this.#takenSinceMs;
    if (tookMs < PACE_WINDOW_MS) return;
    const bytes = (this.#takenBytes / tookMs) * CHUNK_MS;
    this.#takenBytes = 0;
    this.#takenSinceMs = this.#nowMs;
    const chunk = Math.min(Math.max(Math.round(bytes), MIN_CHUNK), this.#pool.slabBytes);
    // Small changes are not worth a system call.
    if (Math.abs(chunk - this.#chunk) * 4 < this.#chunk) return;
    this.#chunk = chunk;
    this.#options.onPace?.(chunk);
  }

  #release(slab: Slab): void {
    this.#slabs.shift();
    if (slab === this.#current) this.#leaveCurrent();
    this.#give(slab);
    if (!this.#wasRefused) return;
    this.#wasRefused = false;
    this.#options.onDrain();
  }

  #give(slab: Slab): void {
    this.#pool.give(slab);
    this.budget.give();
  }

  #leaveCurrent(): void {
    this.#current = undefined;
    this.buffer = EMPTY;
  }
}

function hasSpace(slab: Slab): boolean {
  return slab.buffer.length - slab.head >= FRAME_HEADER_LENGTH + MAX_PACKET_PAYLOAD;
}

const EMPTY: Buffer = Buffer.alloc(0);
/** The wait of packets, in ms, from which packets that find no slab are dropped. */
const LONG_WAIT_MS = 50;
/** How long a full chunk takes, in ms, and over how long that is averaged. */
const CHUNK_MS = 2.5;
const PACE_WINDOW_MS = 50;
const MIN_CHUNK = 16 * 1024;
