/**
 * What a lane has to send: packets, collected in slabs that the sender fills in place, and messages,
 * which overtake them.
 *
 * A packet's way out:
 * 1. `reserve()` tells where in `buffer` its bytes may be written, or that no slab is to be had
 * 2. the caller writes them there, and `commit()` puts the frame header in front
 * 3. `flush()` hands over all that was committed; while the socket is busy it is only marked
 * 4. one write at a time goes to the socket: PONG, then messages, then the marked part of the oldest
 *    slab. So a message waits for one slab at most, and TLS gets one piece of memory, which it need
 *    not copy together first
 * 5. when the socket has taken it, an empty slab goes back to the pool, and `onDrain` tells a caller
 *    that had been refused
 * @module
 */
import type { Writable } from 'node:stream';
import {
  FRAME_HEADER_LENGTH,
  type FrameType,
  MAX_PACKET_PAYLOAD,
  writeFrameHeader,
} from './frame.ts';
import type { Slab, SlabPool } from './slab-pool.ts';

export class Outbox {
  /** The slab that `reserve` pointed into. */
  buffer: Buffer = EMPTY;
  readonly #socket: Writable;
  readonly #pool: SlabPool;
  readonly #maxSlabs: number;
  readonly #onDrain: () => void;
  /** Oldest first; the last one is being filled, unless `#current` is undefined. */
  readonly #slabs: Slab[] = [];
  #current: Slab | undefined;
  readonly #messages: Buffer[] = [];
  #messageBytes = 0;
  #pong: Buffer | undefined;
  #last: Buffer | undefined;
  #isWriting = false;
  /** While the oldest slab is being written: up to where. Otherwise 0. */
  #writingTo = 0;
  #wasRefused = false;

  constructor(socket: Writable, pool: SlabPool, maxSlabs: number, onDrain: () => void) {
    this.#socket = socket;
    this.#pool = pool;
    this.#maxSlabs = maxSlabs;
    this.#onDrain = onDrain;
  }

  /** Bytes of messages that wait. */
  get messageBytes(): number {
    return this.#messageBytes;
  }

  /** See `Lane.reserve`. */
  reserve(): number {
    let slab = this.#current;
    if (slab === undefined || !hasRoom(slab)) {
      slab = this.#nextSlab();
      if (slab === undefined) return -1;
    }
    return slab.head + FRAME_HEADER_LENGTH;
  }

  /** See `Lane.commit`. */
  commit(type: FrameType, payloadLength: number): void {
    const slab = this.#current!;
    writeFrameHeader(slab.buffer, slab.head, type, payloadLength);
    slab.head += FRAME_HEADER_LENGTH + payloadLength;
    if (!hasRoom(slab)) this.flush();
  }

  /** See `Lane.flush`. */
  flush(): void {
    const slab = this.#current;
    if (slab === undefined) return;
    slab.flushed = slab.head;
    this.#pump();
  }

  /** Sends a frame before all packets that wait. */
  send(frame: Buffer): void {
    this.#messages.push(frame);
    this.#messageBytes += frame.length;
    this.#pump();
  }

  /** Sends a frame before all that waits, in place of another such frame that waits. */
  sendPong(frame: Buffer): void {
    this.#pong = frame;
    this.#pump();
  }

  /** Sends what was handed over, then `frame` if there is one, then ends the stream. */
  end(frame: Buffer = EMPTY): void {
    this.#last = frame;
    this.#pump();
  }

  /** Forgets what waits; what the socket is taking now stays. */
  drop(): void {
    this.#pong = undefined;
    this.#messages.length = 0;
    this.#messageBytes = 0;
    const busy = this.#writingTo > 0 ? this.#slabs[0] : undefined;
    if (busy !== undefined) busy.flushed = busy.head = this.#writingTo;
    for (const slab of this.#slabs.splice(busy === undefined ? 0 : 1)) this.#pool.give(slab);
    if (this.#current !== busy) this.#leaveCurrent();
  }

  /** Gives all slabs back, once the socket is gone and uses none any more. */
  free(): void {
    this.#isWriting = true;
    this.#writingTo = 0;
    this.drop();
  }

  #nextSlab(): Slab | undefined {
    if (this.#slabs.length >= this.#maxSlabs) {
      this.#wasRefused = true;
      return undefined;
    }
    const slab = this.#pool.take();
    this.#slabs.push(slab);
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
    bytes ??= this.#nextOfSlab();
    if (bytes !== undefined) {
      this.#isWriting = true;
      this.#socket.write(bytes, this.#onWritten);
    } else if (this.#last !== undefined) {
      this.#isWriting = true;
      this.#socket.end(this.#last);
    }
  }

  #nextOfSlab(): Buffer | undefined {
    const slab = this.#slabs[0];
    if (slab === undefined) return undefined;
    if (slab.sent === slab.flushed) {
      if (slab.sent === slab.head) this.#release(slab);
      return undefined;
    }
    this.#writingTo = slab.flushed;
    return slab.buffer.subarray(slab.sent, slab.flushed);
  }

  readonly #onWritten = (error?: Error | null): void => {
    if (error) return;
    this.#isWriting = false;
    const slab = this.#slabs[0];
    if (slab !== undefined && this.#writingTo > 0) {
      slab.sent = this.#writingTo;
      this.#writingTo = 0;
      // Also the one that is being filled, if it is all sent: an idle lane holds no slab.
      if (slab.sent === slab.head) this.#release(slab);
    }
    this.#pump();
  };

  #release(slab: Slab): void {
    this.#slabs.shift();
    if (slab === this.#current) this.#leaveCurrent();
    this.#pool.give(slab);
    if (!this.#wasRefused) return;
    this.#wasRefused = false;
    this.#onDrain();
  }

  #leaveCurrent(): void {
    this.#current = undefined;
    this.buffer = EMPTY;
  }
}

function hasRoom(slab: Slab): boolean {
  return slab.buffer.length - slab.head >= FRAME_HEADER_LENGTH + MAX_PACKET_PAYLOAD;
}

const EMPTY: Buffer = Buffer.alloc(0);
