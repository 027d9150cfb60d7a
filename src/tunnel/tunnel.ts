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
import type { Credentials } from '../pki/credentials.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import type { FrameType } from './frame.ts';
import type { Close, TunnelRefusal } from './messages.ts';

/** In the state `waiting` the tunnel waits for its next attempt to connect. README.md draws the states. */
export type TunnelState = 'connecting' | 'up' | 'waiting' | 'closed';

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
  /** Packets that were not sent because the tunnel held as much as it may, and had done so for long. */
  droppedFull: number;
  /** Packets that were not sent so that the others wait less. */
  droppedLate: number;
  /** Connections that were ended because the peer did not answer DRAIN in time. */
  drainTimeouts: number;
  /** Connections for which the system waits as long as it likes before it looks for a silent peer (`tcp`). */
  unboundedRetransmission: number;
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
    unboundedRetransmission: 0,
  };
}

/** Why a connection has ended; `code` is one of `CloseCode`, or a code of the peer's own. */
export interface CloseCause extends Close {
  /** The side that ended it: this side, the peer by a CLOSE, or neither, because the connection broke. */
  readonly by: 'us' | 'peer' | 'network';
  /**
   * What the network, OpenSSL or the check of the peer called the fault, for programs: a code of a system error
   * (`ECONNREFUSED`), of TLS (`CERT_HAS_EXPIRED`, `ERR_SSL_...`) or of an error of this library. It is never sent,
   * and undefined unless `by` is `network` and there was an error. `failureOf` reads it.
   */
  readonly errorCode?: string | undefined;
}

/** What is known of a connection whose handshake is done. */
export interface ConnectionInfo {
  /** The far end of the TCP connection; where this side dialled through a proxy, the proxy. */
  readonly remoteAddress: string;
  readonly remotePort: number;
  /**
   * The endpoint that the proxy was asked for. Its address is known to the proxy only. Undefined if there is no proxy,
   * and on the listening side.
   */
  readonly proxiedEndpoint: HostPort | undefined;
  /** The identity of the peer, from its certificate. */
  readonly peer: GatewayIdentity;
  /** The peer's end-entity certificate, verified. */
  readonly certificate: X509Certificate;
  /** TLS cipher suite, for example `TLS_AES_256_GCM_SHA384`. */
  readonly cipher: string;
  /**
   * The group in which the two sides have agreed on a key. Node reveals it to the dialling side only. On the listening
   * side, which allows these groups only, it is what the peer says, and undefined if the peer says nothing.
   */
  readonly keyExchange: KeyExchangeGroup | undefined;
}

export interface TunnelEvents {
  /** The listening side has acknowledged the tunnel: packets may flow. */
  up: [info: ConnectionInfo];
  /** A further connection has come or gone; `count` connections carry packets now. */
  connections: [connections: { readonly count: number }];
  /**
   * Another connection, under a newer certificate, is the primary one: on the dialling side after `updateCredentials`,
   * on the other when its peer has done so. The tunnel has been up all the time.
   */
  renewed: [info: ConnectionInfo];
  /** The tunnel was up, and is not up any more. */
  down: [cause: CloseCause];
  /** A message of the peer's control layer. It is checked only to be JSON. */
  control: [message: Json];
  /** The peer refuses the tunnel; the dialling side tries again at its longest interval. */
  refused: [refusal: { readonly error: PeerRefusedError; readonly code: string }];
  /**
   * The dialling side will try again in `delayMs`. `othersUnreached` says whether the attempt could not connect to another
   * endpoint either, which may work later whatever the cause is.
   */
  waiting: [
    wait: {
      readonly delayMs: number;
      readonly cause: CloseCause;
      readonly othersUnreached: boolean;
    },
  ];
}

/**
 * Carries packets and control messages to one peer. `reserve`, `commit` and `flush` send without a copy, `sendPacket`
 * with one.
 */
export interface Tunnel extends EventEmitter<TunnelEvents> {
  /**
   * The identity of the peer, from the verified certificate of the primary connection. A dialled tunnel knows it from
   * the first time it is up.
   */
  readonly peer: GatewayIdentity | undefined;
  readonly state: TunnelState;
  /** What is known of the primary connection; undefined on the dialling side unless the tunnel is up. */
  readonly info: ConnectionInfo | undefined;
  readonly counters: Readonly<ConnectionCounters>;
  /** Round-trip time of the last PING that was answered on the primary connection, in ms. */
  readonly rttMs: number | undefined;
  /** How many connections carry packets; 0 unless the tunnel is up. */
  readonly connections: number;

  /**
   * Takes each packet: its virtio-net header begins at `start`, and it ends before `end`. The bytes, and all in front
   * of them in the buffer, may be changed, and hold until the call returns.
   */
  onPacket: (buffer: Buffer, start: number, end: number) => void;
  /** Called after each batch of packets, when it is time to flush. */
  onBatchEnd: () => void;
  /**
   * Called once after `reserve` returned -1, when there is space again. It is not called if the tunnel
   * went down meanwhile: then `down` is emitted.
   */
  onDrain: () => void;

  /** The slab that `reserve` pointed into; it may be another one after each call. */
  readonly buffer: Buffer;

  /**
   * Returns the offset in `buffer` where the next packet may be written, virtio-net header first;
   * there are `MAX_PACKET_PAYLOAD` bytes of space. Returns -1 when the tunnel is not up, and when it
   * holds as much as it may. `onDrain` follows only in the second case: `state` tells which it is. Where
   * packets have waited long already, there is always space, and `commit` drops the packet.
   * The offset holds until the next call of another method, or the return to the event loop.
   *
   * The tunnel can go down during a call of `commit`, `flush` or `sendPacket`: the system may report only
   * then that the peer has reset the connection.
   */
  reserve(): number;

  /**
   * Makes a frame of the `payloadLength` bytes that were written where `reserve` said. Returns false,
   * and counts it, if the packet is dropped because too much waits already on the connection of its flow.
   */
  commit(type: FrameType, payloadLength: number): boolean;

  /** Sends what was committed. Call it when a batch ends. */
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
   * Ends the tunnel for good. Delivery stops at once. What was committed is sent, on further connections for 1 s at
   * most. Then the peer learns why, by default `CloseCode.Shutdown`, and with `CloseCode.Moved` where to dial instead
   * (`endpoints`).
   * Resolves when the connections are gone, after 2 s at most. Each call returns the same promise, and the peer learns
   * what the first call says.
   */
  close(close?: Partial<TunnelRefusal>): Promise<void>;

  /** Ends the tunnel as `close` does, but drops what was committed. Nothing passes any more when it returns. */
  abort(close: TunnelRefusal): Promise<void>;

  /** Ends the tunnel for good and at once, and sends the peer nothing. */
  destroy(): void;
}

/** The private part of a tunnel that depends on who has dialled: it adds the connections to the tunnel's set. */
export interface TunnelDriver {
  readonly peer: GatewayIdentity | undefined;
  readonly state: TunnelState;
  readonly info: ConnectionInfo | undefined;
  /** The software that the peer says it runs. */
  readonly software: string | undefined;
  /** Called once, when the tunnel is complete. */
  start(): void;
  updateCredentials(credentials: Credentials): Promise<void>;
  /** Adds no more connections from now on. */
  finish(): void;
}

/** Returns what is known of a connection whose handshake is done, and whose peer is verified to be `peer`. */
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
