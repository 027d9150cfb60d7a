/**
 * The JSON payloads of HELLO, WELCOME and CLOSE (docs/wire-format.md). Unknown keys are ignored, so that later versions
 * can add some.
 * @module
 */
import * as v from 'valibot';
import type { HostPort } from '../base/host-port.ts';
import { KEY_EXCHANGE_GROUPS, type KeyExchangeGroup } from '../base/key-exchange.ts';
import type { Json } from '../store/store.ts';
import { FRAME_HEADER_LENGTH, FrameType, writeFrameHeader } from './frame.ts';

/** ALPN name of the protocol; its number grows when an old peer could not follow. */
export const ALPN_PROTOCOL = 'virtual-presence/1';

/** Grows with additions that an old peer may ignore; the lower number of the two peers counts. */
export const PROTOCOL_VERSION = 1;

/** Connections of a tunnel, at most. */
export const MAX_CONNECTIONS = 64;

/** Endpoints that one side may name to the other, at most. */
export const MAX_ENDPOINTS = 16;

/** Characters of JSON that they have, at most, because WELCOME and CLOSE are bounded. */
const MAX_ENDPOINTS_LENGTH = 1_400;

/** The longest wait that one side may ask the other for, in ms. */
export const MAX_WAIT_MS = 120_000;

/** Why a tunnel was closed, for programs. An `authorize` function may bring codes of its own. */
export const CloseCode = {
  /** The gateway ends; dial again. */
  Shutdown: 'shutdown',
  /** A newer tunnel of the same site has taken over. */
  Replaced: 'replaced',
  /** The site's certificate is revoked. */
  Revoked: 'revoked',
  /** The certificate is good, but no such site is configured. */
  UnknownSite: 'unknown-site',
  /** The gateway could not decide whether the peer may come in, and so refuses it. */
  NotAuthorized: 'not-authorized',
  /** The certificate is not that of a site of this cloud. */
  WrongIdentity: 'wrong-identity',
  /** The site is served elsewhere; the CLOSE says where. */
  Moved: 'moved',
  /** A further connection is not needed any more. */
  Idle: 'idle',
  /** Another connection, under a newer certificate, has taken the place of this one. */
  Renewed: 'renewed',
  /** The connection is for a tunnel that is not there, has enough connections, or is being renewed. */
  NoTunnel: 'no-tunnel',
  /** The peer sent what the protocol does not allow. */
  ProtocolError: 'protocol-error',
  /** The peer sent more control messages than it may. */
  ControlRate: 'control-rate',
  /** The peer has opened more connections in the time than it may. */
  TooMany: 'too-many',
  /** The gateway has too much to do now to decide about the peer; `retryAfterMs` says when to dial again. */
  Busy: 'busy',
  /** The certificate does not lead to a CA that is trusted here, or is not valid now. */
  Untrusted: 'untrusted',
  /** The gateway has held the site at an earlier time than another one that the peer has been connected to since. */
  StaleEpoch: 'stale-epoch',
  /** Never sent: the connection could not be made, or broke. */
  ConnectionLost: 'connection-lost',
  /** Never sent: nothing came from the peer for three keepalive intervals. */
  KeepaliveTimeout: 'keepalive-timeout',
  /** Never sent: the peer did not finish the handshake in time. */
  HandshakeTimeout: 'handshake-timeout',
  /** Never sent: the connection was ended for a newer one while its handshake was under way. */
  Evicted: 'evicted',
  /** Never sent: an address has opened more connections than it may. */
  RateLimited: 'rate-limited',
} as const;

/**
 * When a gateway has taken a site, in the order of all gateways of a cluster: an edge that was connected to one with a
 * higher number takes none with a lower one. Numbers of different clusters are not compared.
 */
export interface TunnelEpoch {
  /** 1 to 64 of letters, digits, dots, underscores and hyphens. */
  readonly cluster: string;
  /** A whole number, 0 or more. */
  readonly number: number;
}

interface Greeting {
  readonly version: number;
  /** The software that the peer says it runs; for logs. */
  readonly software: string;
}

export interface Hello extends Greeting {
  /** Which tunnel of the peer this connection belongs to; absent if the peer's tunnels have one connection only. */
  readonly tunnel?: string | undefined;
  /** The number of the connection, 0 or absent for the primary one. The key is called lane on the wire. */
  readonly lane?: number | undefined;
  /** The connection is to take the place of the primary one of a tunnel that is there. */
  readonly renews?: boolean | undefined;
  /** The group of the key exchange of this connection. Node does not reveal it to the listening side. */
  readonly keyExchange?: KeyExchangeGroup | undefined;
  /** The epoch of the last gateway whose WELCOME the dialling side has taken; absent if there was none. */
  readonly epoch?: TunnelEpoch | undefined;
}

export interface Welcome extends Greeting {
  /** The dialling side's identity as the listening side has read it from the certificate. */
  readonly peer: string;
  /** The interval at which both sides send PING. */
  readonly keepaliveMs: number;
  /** How many connections a tunnel may have; 1 if absent. The key is called lanes on the wire. */
  readonly lanes?: number | undefined;
  /**
   * After the loss of the tunnel and one attempt that fails, the dialling side waits a random time below this before it
   * dials again, in ms, so that the sites do not all come at once; 0 if absent.
   */
  readonly reconnectSpreadMs?: number | undefined;
  /** When the listening side has taken the site; absent if it is the only one that may. */
  readonly epoch?: TunnelEpoch | undefined;
  /** Where else the dialling side may dial after a loss, besides what it is configured with. */
  readonly endpoints?: readonly HostPort[] | undefined;
}

/** What a peer learns about the end of its tunnel. */
export interface Close {
  /** One of `CloseCode`, or a code of the host's own of lower-case letters, digits and hyphens. */
  readonly code: string;
  /** A text for an operator. */
  readonly reason: string;
  /** Where to dial instead, with `moved`. Default: the first of `endpoints`. */
  readonly endpoint?: CloseEndpoint | undefined;
  /** Where to dial instead, with `moved`, in this order: at most 16. A peer of before this member dials `endpoint`. */
  readonly endpoints?: readonly HostPort[] | undefined;
  /**
   * How long the peer should wait before it dials again, in ms, a whole number from 0 to 120,000, with a code that says
   * that the refusal will pass: `busy`, `too-many` or `shutdown`. The peer waits up to half as long again, and never
   * longer than its own `backoff.maxMs`. Default: the peer's own `backoff`.
   */
  readonly retryAfterMs?: number | undefined;
}

/** What a peer learns when the host refuses it. */
export type TunnelRefusal = Close;

/** Where to dial instead. */
export interface CloseEndpoint {
  /** Name or address; the one that was dialled if absent. */
  readonly host?: string | undefined;
  readonly port: number;
}

/** Returns undefined when the message is not a HELLO. */
export function readHello(message: Json): Hello | undefined {
  return read(helloSchema, message);
}

/** Returns undefined when the message is not a WELCOME. */
export function readWelcome(message: Json): Welcome | undefined {
  return read(welcomeSchema, message);
}

/** Returns undefined when the message is not a CLOSE. */
export function readClose(message: Json): Close | undefined {
  return read(closeSchema, message);
}

/**
 * Returns a whole CLOSE frame. A reason may be the host's own: what is too long for a frame, or is not printable, is
 * left out of it.
 */
export function closeFrame({
  code,
  reason,
  endpoints,
  endpoint = endpoints?.[0],
  retryAfterMs,
}: Close): Buffer {
  // Members that are undefined are left out.
  const close = { code, reason: printable(reason), endpoint, endpoints, retryAfterMs };
  return jsonFrame(FrameType.Close, close);
}

/** Returns a whole frame with a JSON payload. */
export function jsonFrame(type: FrameType, message: Hello | Welcome | Close | Json): Buffer {
  const text = JSON.stringify(message);
  const frame = Buffer.allocUnsafe(FRAME_HEADER_LENGTH + Buffer.byteLength(text));
  writeFrameHeader(frame, 0, type, frame.length - FRAME_HEADER_LENGTH);
  frame.write(text, FRAME_HEADER_LENGTH);
  return frame;
}

/** Returns undefined when the payload is not JSON in UTF-8. */
export function parseJson(buffer: Buffer, start: number, end: number): Json | undefined {
  try {
    return JSON.parse(utf8.decode(buffer.subarray(start, end)));
  } catch {
    return undefined;
  }
}

/** Returns a text of a peer as it may stand in logs and errors: on one line, printable, not long. */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 256);
}

function read<T>(schema: v.GenericSchema<unknown, T>, message: Json): T | undefined {
  const result = v.safeParse(schema, message);
  return result.success ? result.output : undefined;
}

const whole = (min: number, max: number) =>
  v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max));

const port = whole(1, 65_535);
const host = v.pipe(v.string(), v.regex(/^[0-9A-Za-z.:-]{1,253}$/));

export const epochSchema: v.GenericSchema<unknown, TunnelEpoch> = v.object({
  cluster: v.pipe(v.string(), v.regex(/^[0-9A-Za-z._-]{1,64}$/)),
  number: whole(0, Number.MAX_SAFE_INTEGER),
});

/** Few enough for a WELCOME or a CLOSE. */
export const endpointsSchema: v.GenericSchema<unknown, HostPort[]> = v.pipe(
  v.array(v.object({ host, port })),
  v.maxLength(MAX_ENDPOINTS),
  v.check((endpoints) => JSON.stringify(endpoints).length <= MAX_ENDPOINTS_LENGTH)
);

const greeting = {
  version: whole(1, Number.MAX_SAFE_INTEGER),
  software: v.pipe(v.string(), v.maxLength(256), v.transform(printable)),
};
const helloSchema = v.object({
  ...greeting,
  tunnel: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/))),
  lane: v.optional(whole(0, MAX_CONNECTIONS - 1)),
  renews: v.optional(v.boolean()),
  // Another group cannot have been used, so it counts as absent.
  keyExchange: v.fallback(v.optional(v.picklist(KEY_EXCHANGE_GROUPS)), undefined),
  epoch: v.optional(epochSchema),
});
const welcomeSchema = v.object({
  ...greeting,
  peer: v.pipe(v.string(), v.maxLength(2048)),
  keepaliveMs: whole(100, 600_000),
  lanes: v.optional(whole(1, MAX_CONNECTIONS)),
  reconnectSpreadMs: v.optional(whole(0, MAX_WAIT_MS)),
  epoch: v.optional(epochSchema),
  endpoints: v.optional(endpointsSchema),
});
const closeSchema = v.object({
  code: v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,64}$/)),
  reason: v.pipe(v.string(), v.transform(printable)),
  endpoint: v.optional(v.object({ host: v.optional(host), port })),
  endpoints: v.optional(endpointsSchema),
  retryAfterMs: v.optional(whole(0, MAX_WAIT_MS)),
});

const utf8 = new TextDecoder('utf-8', { fatal: true });
