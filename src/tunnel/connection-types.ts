/**
 * A connection: one of the connections that carry the frames of a tunnel. `Connection` is what the packets and the messages of a
 * tunnel need of one. It is not all: a tunnel also takes a connection over from its handshake, and holds its control
 * messages back while another connection becomes the first one. `TunnelConnection`, the only kind of connection there is, can do that too.
 * @module
 */
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Json } from '../store/store.ts';
import { type FrameType, MAX_FRAME_PAYLOAD } from './frame.ts';
import { type Close, MAX_CONNECTIONS } from './messages.ts';
import { SlabBudget, type SlabPool } from './slab-pool.ts';

/** Cumulative. Bytes of packets are counted with their virtio-net header, without the frame's. */
export interface ConnectionCounters {
  sentPackets: number;
  sentBytes: number;
  receivedPackets: number;
  receivedBytes: number;
  sentControl: number;
  receivedControl: number;
  /** Control messages that were not taken because too many waited. */
  refusedControl: number;
  /** Packets that were not sent because as many waited as may, and had done so for long. */
  droppedFull: number;
  /** Packets that were not sent so that the others wait less. */
  droppedLate: number;
  /** Connections that were cut because the peer did not answer DRAIN in time. */
  drainTimeouts: number;
}

export function newConnectionCounters(): ConnectionCounters {
  return {
    sentPackets: 0,
    sentBytes: 0,
    receivedPackets: 0,
    receivedBytes: 0,
    sentControl: 0,
    receivedControl: 0,
    refusedControl: 0,
    droppedFull: 0,
    droppedLate: 0,
    drainTimeouts: 0,
  };
}

/** Why a connection has ended; `code` is one of `CloseCode`, or a code of the peer's own. */
export interface CloseCause extends Close {
  /** Who ended it: this side, the far side by a CLOSE, or neither (the connection broke). */
  readonly by: 'us' | 'peer' | 'network';
  /**
   * What the network, OpenSSL or the check of the peer called the fault, for programs: a code of a system error
   * (`ECONNREFUSED`), of TLS (`CERT_HAS_EXPIRED`, `ERR_SSL_...`) or of an error of this library. It is never sent,
   * and undefined unless `by` is `network` and there was an error. `failureOf` reads it.
   */
  readonly errorCode?: string | undefined;
}

/** What a connection reports to the tunnel that it serves. */
export interface ConnectionOwner {
  readonly counters: ConnectionCounters;
  /** Shared by all connections of the tunnel. */
  readonly budget: SlabBudget;
  onPacket: (buffer: Buffer, start: number, end: number) => void;
  onBatchEnd: () => void;
  onDrain: () => void;
  /** HELLO or WELCOME came. Returns what is wrong with it, or undefined. */
  onHandshake(message: Json): string | undefined;
  /** Returns why the connection has to end, if the message is not allowed. */
  onControl(message: Json, bytes: number): Close | undefined;
  /** DRAIN came: the peer gives this connection nothing any more. Returns what is wrong with it, if anything. */
  onPeerDrained(): string | undefined;
  /** Called once; the connection carries nothing any more. */
  onConnectionClosed(cause: CloseCause): void;
}

/** For a connection whose handshake is under way: it carries nothing, and is to be handed to its tunnel. */
export function handshakeOwner(
  hooks: Pick<ConnectionOwner, 'onHandshake' | 'onConnectionClosed'>
): ConnectionOwner {
  return {
    counters: newConnectionCounters(),
    budget: new SlabBudget(0),
    onPacket: ignore,
    onBatchEnd: ignore,
    onDrain: ignore,
    onControl: () => undefined,
    onPeerDrained: () => undefined,
    ...hooks,
  };
}

/** Bounds of what one connection takes and holds. */
export interface TunnelConnectionLimits {
  /**
   * Slabs of packets that may be on their way in a tunnel; default 16. A connection takes half of what the
   * others have left, and one at least.
   */
  readonly maxSlabs?: number;
  /** Longest control message, in bytes of JSON; at most 16 MiB - 1; default 4 MiB. */
  readonly maxControlBytes?: number;
  /**
   * Longest control message taken from the peer, in bytes of JSON; default 128 KiB where this side listens, for
   * reading one takes all other tunnels' time, and never more than `maxControlBytes`, the default where it dials.
   */
  readonly maxReceivedControlBytes?: number;
  /**
   * Bytes of control messages taken from the peer of a tunnel a second, averaged over 10 s; default
   * `maxReceivedControlBytes`.
   */
  readonly maxControlByteRate?: number;
  /** Control messages that may wait to be sent, in bytes; default twice `maxControlBytes`. */
  readonly maxControlQueueBytes?: number;
  /** Control messages taken from the peer of a tunnel a second, averaged over 10 s; default 100. */
  readonly maxControlRate?: number;
  /** How long a connection may take to end by agreement, in ms; default 10,000. */
  readonly drainTimeoutMs?: number;
}

/** Tells the system how much of what a connection was given it is to keep unsent, in bytes. */
export type NotSentLowat = (socket: TLSSocket, bytes: number) => void;

export interface ConnectionOptions extends Required<TunnelConnectionLimits> {
  readonly pool: SlabPool;
  readonly clock: Clock;
  readonly limitUnsent: NotSentLowat | undefined;
}

/** A connection to the peer, as those see it that send over it. */
export interface Connection {
  /** The slab that `reserve` pointed into. */
  readonly buffer: Buffer;

  /** Round-trip time of the last PING that was answered, in ms. */
  readonly rttMs: number | undefined;

  /** How long the packet that is to be sent next has waited, in ms. */
  readonly waitMs: number;

  /** Resolves when the connection is gone and all memory is given back. */
  readonly gone: Promise<void>;

  /**
   * Returns the offset in `buffer` where the payload of the next frame may be written; there are
   * `MAX_PACKET_PAYLOAD` bytes of room. Returns -1 when the connection is not up, or when as much as it
   * may hold is on its way: then `onDrain` will be called. Holds until the next call of another
   * method, or the return to the event loop.
   */
  reserve(): number;

  /**
   * Makes a frame of the `payloadLength` bytes that were written where `reserve` said. Returns false,
   * and counts it, if the packet is dropped because too much waits already.
   */
  commit(type: FrameType, payloadLength: number): boolean;

  /** Hands what was committed to the connection, now or as soon as it has taken what it has. */
  flush(): void;

  /**
   * Sends a message before all packets that wait. Returns false when the connection is not up, or too
   * many messages wait.
   *
   * @throws {ApiMisuseError} if the message is longer than `maxControlBytes`.
   */
  sendControl(message: Json): boolean;

  /** Takes nothing any more, sends what waits, then DRAIN. What the peer sends is still taken. */
  drain(): void;

  /**
   * Ends the connection: takes nothing any more, sends what waits, then says why; `after` something else is
   * done, if that is given.
   */
  close(close: Close, after?: Promise<unknown>): void;

  /** Ends the connection: takes nothing any more, drops what waits, says why. */
  abort(close: Close): void;

  /** Ends the connection at once, without a word to the peer. */
  destroy(code: string, reason: string): void;
}

/** What holds for limits that are left out, apart from those that depend on others. */
export const CONNECTION_DEFAULTS: Readonly<
  Record<'maxSlabs' | 'maxControlBytes' | 'maxControlRate' | 'drainTimeoutMs', number>
> = Object.freeze({
  maxSlabs: 16,
  maxControlBytes: 4 * 1024 * 1024,
  maxControlRate: 100,
  drainTimeoutMs: 10_000,
});

/**
 * Fills in the defaults.
 *
 * @throws {ApiMisuseError} if a limit is not a positive integer, or too large for the frame format.
 */
export function resolveLimits(limits: TunnelConnectionLimits): Required<TunnelConnectionLimits> {
  const {
    maxSlabs = CONNECTION_DEFAULTS.maxSlabs,
    maxControlBytes = CONNECTION_DEFAULTS.maxControlBytes,
    maxControlRate = CONNECTION_DEFAULTS.maxControlRate,
    drainTimeoutMs = CONNECTION_DEFAULTS.drainTimeoutMs,
  } = limits;
  const { maxControlQueueBytes = 2 * maxControlBytes } = limits;
  const { maxReceivedControlBytes = maxControlBytes } = limits;
  const { maxControlByteRate = maxReceivedControlBytes } = limits;
  const resolved = {
    maxSlabs,
    maxControlBytes,
    maxReceivedControlBytes,
    maxControlByteRate,
    maxControlQueueBytes,
    maxControlRate,
    drainTimeoutMs,
  };
  for (const [name, value] of Object.entries(resolved)) checkWhole(name, value);
  for (const [name, bytes] of Object.entries({ maxControlBytes, maxReceivedControlBytes })) {
    if (bytes > MAX_FRAME_PAYLOAD) {
      throw new ApiMisuseError(`${name} must be at most ${MAX_FRAME_PAYLOAD}`);
    }
  }
  return resolved;
}

/** @throws {ApiMisuseError} if it is not a positive integer. */
export function checkWhole(name: string, value: number): number {
  if (Number.isInteger(value) && value >= 1) return value;
  throw new ApiMisuseError(`${name} must be a positive integer, not ${value}`);
}

/** @throws {ApiMisuseError} if a tunnel cannot have so many connections. */
export function checkConnections(connections: number): number {
  if (Number.isInteger(connections) && connections >= 1 && connections <= MAX_CONNECTIONS)
    return connections;
  throw new ApiMisuseError(
    `connections must be a whole number from 1 to ${MAX_CONNECTIONS}, not ${connections}`
  );
}

function ignore(): void {}
