/**
 * The numbers of a connection that nobody else may guess: its initial sequence number, the offset of its timestamps,
 * and the hash under which tables keep it. All depend on one secret of the endpoint.
 * @module
 */
import { createHmac } from 'node:crypto';
import type { IpAddress } from '../base/address.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Flow } from './flow.ts';

/** The addresses of a flow as words, as `IpAddress.words` has them. */
export type AddressWords = ArrayLike<number>;

export class SequenceNumbers {
  readonly #secret: Uint8Array;
  readonly #message: Uint8Array = new Uint8Array(MESSAGE);
  /** The two words of the table hash's key. */
  readonly #key0: number;
  readonly #key1: number;

  /**
   * @param secret 32 random bytes, new for each endpoint
   * @throws {ApiMisuseError} if the secret has another length
   */
  constructor(secret: Uint8Array) {
    if (secret.length !== SECRET) {
      throw new ApiMisuseError(`the secret must have ${SECRET} bytes, not ${secret.length}`);
    }
    this.#secret = Uint8Array.from(secret);
    this.#message[0] = Purpose.TableKey;
    const key = this.#mac();
    this.#key0 = key.readInt32LE(0);
    this.#key1 = key.readInt32LE(4);
  }

  /**
   * Returns the initial sequence number of a new connection: a clock of 4 µs plus a keyed hash of the flow
   * ([RFC 9293 section 3.4.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.4.1)). The numbers of one flow go up
   * with time, so that a new connection is told from the last one; those of other flows say nothing about them.
   */
  isn(flow: Flow, now: number): number {
    return (Math.floor(now * TICKS_PER_MS) + this.#hash(Purpose.SequenceNumber, flow, true)) | 0;
  }

  /**
   * Returns what is added to the clock of timestamps ([RFC 7323](https://www.rfc-editor.org/rfc/rfc7323)).
   * It is the same for all connections between two addresses: their timestamps then go up from one connection to the
   * next, and a new SYN may take the place of a connection in TIME-WAIT (RFC 6191).
   */
  timestampOffset(flow: Flow): number {
    return this.#hash(Purpose.TimestampOffset, flow, false);
  }

  /**
   * Returns a hash of 30 bits for tables. It is HalfSipHash-1-3, as Linux uses for its tables of 32-bit machines:
   * without the key nobody can choose flows that share a place. It allocates nothing.
   *
   * @param local the words of this endpoint's address, as many as `remote` has
   */
  flowHash(
    local: AddressWords,
    localPort: number,
    remote: AddressWords,
    remotePort: number
  ): number {
    const count = local.length;
    const ports = 2 * count;
    let v0 = this.#key0;
    let v1 = this.#key1;
    let v2 = this.#key0 ^ 0x6c796765;
    let v3 = this.#key1 ^ 0x74656462;
    // The last word carries the length in bytes, as SipHash pads. Three rounds finish.
    for (let i = 0; i <= ports + 4; i++) {
      let word = 0;
      if (i < count) word = local[i]!;
      else if (i < ports) word = remote[i - count]!;
      else if (i === ports) word = (localPort << 16) | remotePort;
      else if (i === ports + 1) word = (4 * (ports + 1)) << 24;
      else if (i === ports + 2) v2 ^= 0xff;
      v3 ^= word;
      v0 = (v0 + v1) | 0;
      v1 = (v1 << 5) | (v1 >>> 27);
      v1 ^= v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = (v3 << 8) | (v3 >>> 24);
      v3 ^= v2;
      v0 = (v0 + v3) | 0;
      v3 = (v3 << 7) | (v3 >>> 25);
      v3 ^= v0;
      v2 = (v2 + v1) | 0;
      v1 = (v1 << 13) | (v1 >>> 19);
      v1 ^= v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= word;
    }
    return (v1 ^ v3) >>> 2;
  }

  #hash(purpose: number, flow: Flow, hasPorts: boolean): number {
    const message = this.#message;
    message.fill(0);
    message[0] = purpose;
    message[1] = flow.family;
    if (hasPorts) {
      message[2] = flow.localPort >>> 8;
      message[3] = flow.localPort;
      message[4] = flow.remotePort >>> 8;
      message[5] = flow.remotePort;
    }
    writeAddress(message, LOCAL, flow.local);
    writeAddress(message, REMOTE, flow.remote);
    return this.#mac().readInt32LE(0);
  }

  #mac(): Buffer {
    return createHmac('sha256', this.#secret).update(this.#message).digest();
  }
}

function writeAddress(message: Uint8Array, at: number, address: IpAddress): void {
  const { words } = address;
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    message[at + 4 * i] = word >>> 24;
    message[at + 4 * i + 1] = word >>> 16;
    message[at + 4 * i + 2] = word >>> 8;
    message[at + 4 * i + 3] = word;
  }
}

const SECRET = 32;
/** The clock of sequence numbers has a tick of 4 µs. */
const TICKS_PER_MS = 250;

/** What a keyed hash is for: the first byte of the message, so that one purpose says nothing about another. */
const Purpose = { TableKey: 1, SequenceNumber: 2, TimestampOffset: 3 } as const;

/** The message that is hashed: purpose, family, both ports, padding, both addresses. */
const LOCAL = 8;
const REMOTE = LOCAL + 16;
const MESSAGE = REMOTE + 16;
