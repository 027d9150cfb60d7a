/**
 * A tunnel as the data plane and the control layer see it, whichever side dialled.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { EventEmitter } from 'eventemitter3';
import type { HostPort } from '../base/host-port.ts';
import type { KeyExchangeGroup } from '../base/key-exchange.ts';
import type { PeerRefusedError } from '../errors.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import type { TunnelRefusal } from './authorize.ts';
import type { CloseCause, ConnectionCounters } from './connection-types.ts';
import type { FrameType } from './frame.ts';

/** `waiting`: until the next attempt to connect. */
export type TunnelState = 'connecting' | 'up' | 'waiting' | 'closed';

/** About the connection that carries a tunnel. */
export interface ConnectionInfo {
  /** The far end of the TCP connection. On the dialling side of a connection through a proxy that is the proxy. */
  readonly remoteAddress: string;
  readonly remotePort: number;
  /**
   * The endpoint that the proxy was asked for, as it was dialled: which address that was, only the proxy knows.
   * Undefined if there is no proxy between, and on the listening side.
   */
  readonly proxiedEndpoint: HostPort | undefined;
  /** Who the peer is, by its certificate. */
  readonly peer: GatewayIdentity;
  /** The peer's end-entity certificate, verified. */
  readonly certificate: X509Certificate;
  /** TLS cipher suite, for example `TLS_AES_256_GCM_SHA384`. */
  readonly cipher: string;
  /**
   * The group in which the two sides have agreed on a key. The dialling side knows it; the listening side allows no
   * other group than these, and which of them was used Node does not tell it: there it is what the peer says, and
   * undefined if the peer says nothing.
   */
  readonly keyExchange: KeyExchangeGroup | undefined;
}

export interface TunnelEvents {
  /** Acknowledged by the listening side: packets may flow. */
  up: [info: ConnectionInfo];
  /** A further connection has come or gone; so many carry packets now. */
  connections: [connections: { readonly count: number }];
  /**
   * The first connection is another one, under a newer certificate: on the dialling side after `updateCredentials`, on the
   * other when its peer has done so. The tunnel has been up all the time.
   */
  renewed: [info: ConnectionInfo];
  /** Was up, and is no more. */
  down: [cause: CloseCause];
  /** A message of the far control layer, not validated beyond being JSON. */
  control: [message: Json];
  /** The peer says no; the dialling side goes on to try at its longest interval. */
  refused: [refusal: { readonly error: PeerRefusedError; readonly code: string }];
  /** The dialling side will try again in `delayMs`. */
  waiting: [wait: { readonly delayMs: number; readonly cause: CloseCause }];
}

/**
 * Carries packets and control messages to one peer. `reserve`, `commit` and `flush` are the way
 * without a copy, `sendPacket` is the one with.
 */
export interface Tunnel extends EventEmitter<TunnelEvents> {
  /**
   * Who the peer is, by the verified certificate of the first connection. A dialled tunnel does not know before it has
   * been up, and keeps what it knows when it goes down.
   */
  readonly peer: GatewayIdentity | undefined;
  readonly state: TunnelState;
  /** Of the first connection of the tunnel that is up. */
  readonly info: ConnectionInfo | undefined;
  readonly counters: Readonly<ConnectionCounters>;
  /** Round-trip time of the last PING that was answered on the first connection, in ms. */
  readonly rttMs: number | undefined;
  /** How many connections carry packets; 0 unless the tunnel is up. */
  readonly connections: number;

  /**
   * Takes each packet: its virtio-net header begins at `start`, it ends before `end`. The bytes, and
   * all that is in front of them in the buffer, may be changed, and are gone when the call returns.
   */
  onPacket: (buffer: Buffer, start: number, end: number) => void;
  /** Called after each run of packets, so that what they led to can be flushed. */
  onBatchEnd: () => void;
  /**
   * Called once after `reserve` returned -1, when there is room again. Not called when the tunnel
   * went down meanwhile: `down` says so.
   */
  onDrain: () => void;

  /** The slab that `reserve` pointed into; another one after each call of it. */
  readonly buffer: Buffer;

  /**
   * Returns the offset in `buffer` where the next packet may be written, virtio-net header first;
   * there are `MAX_PACKET_PAYLOAD` bytes of room. Returns -1 when the tunnel is not up, and when it
   * holds as much as it may. `onDrain` follows only in the second case: `state` tells which it is. Behind
   * a connection that is too slow for what it was given there is always room, and the packet is dropped.
   * The offset holds until the next call of another method, or the return to the event loop.
   *
   * The tunnel can go down during a call of `commit`, `flush` or `sendPacket`: the system may say only
   * then that the peer has reset the connection, and Node may emit that at once.
   */
  reserve(): number;

  /**
   * Makes a frame of the `payloadLength` bytes that were written where `reserve` said. Returns false,
   * and counts it, if the packet is dropped because too much waits already on the connection of its flow.
   */
  commit(type: FrameType, payloadLength: number): boolean;

  /** Sends what was committed; to be called when a batch ends. */
  flush(): void;

  /** Copies and commits a packet. Returns false, as `commit` does, if it is dropped. */
  sendPacket(buffer: Buffer, start: number, end: number): boolean;

  /**
   * Sends a message ahead of packets that wait. Returns false when the tunnel is not up, or too many
   * messages wait.
   *
   * @throws {ApiMisuseError} if the message is longer than `maxControlBytes`.
   */
  sendControl(message: Json): boolean;

  /**
   * Ends the tunnel for good: delivery stops at once, what was committed is sent, on further connections for
   * 1 s at most, then the peer is told why, by default `CloseCode.Shutdown`, and with `CloseCode.Moved` where to dial
   * instead. Resolves when the connections are gone, after 2 s at most. Each call returns the same promise; what the
   * first one says is what the peer is told.
   */
  close(close?: Partial<TunnelRefusal>): Promise<void>;

  /** The same, but drops what was committed. Nothing passes any more when it returns. */
  abort(close: TunnelRefusal): Promise<void>;

  /** Ends the tunnel for good and at once, without a word to the peer. */
  destroy(): void;
}

/** Collects what is known of a connection whose handshake is done, and whose peer is verified to be `peer`. */
export function connectionInfo(
  socket: TLSSocket,
  peer: GatewayIdentity,
  certificate: X509Certificate,
  keyExchange: KeyExchangeGroup | undefined,
  proxiedEndpoint?: HostPort
): ConnectionInfo {
  return {
    remoteAddress: socket.remoteAddress ?? '',
    remotePort: socket.remotePort ?? 0,
    proxiedEndpoint,
    peer,
    certificate,
    cipher: socket.getCipher().name,
    keyExchange,
  };
}
