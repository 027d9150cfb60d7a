/**
 * The options of both sides of a tunnel. `DIAL_ROWS` and `LISTEN_ROWS` have the default and the limits of each;
 * README.md shows them as tables, and a test compares the two.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import type { SecureContext, TLSSocket } from 'node:tls';
import { type BackoffOptions, DEFAULT_BACKOFF } from '../base/backoff.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import type { HostPortInput, RankedHostPort } from '../base/host-port.ts';
import { RankedHostPortSchema } from '../base/host-port-schema.ts';
import { checkThat } from '../base/option-check.ts';
import { type ProxyOption, proxyFor } from '../base/proxy.ts';
import { parseSchema } from '../base/schema.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import { MAX_FRAME_PAYLOAD } from './frame.ts';
import type { AuthorizeAnswer, TunnelCandidate } from './host-decision.ts';
import type { Progress } from './keepalive.ts';
import { ALPN_PROTOCOL, MAX_CONNECTIONS } from './messages.ts';
import { SlabPool } from './slab-pool.ts';
import { secureContext } from './tls-profile.ts';

/** Bounds of what one tunnel takes and holds. */
export interface TunnelLimits {
  /**
   * Slabs of packets that may be on their way in a tunnel; default 16. A connection takes half of what the
   * others have left, and one at least.
   */
  readonly maxSlabs?: number;
  /** Longest control message, in bytes of JSON; at most 16 MiB - 1; default 4 MiB. */
  readonly maxControlBytes?: number;
  /**
   * Longest control message taken from the peer, in bytes of JSON, never more than `maxControlBytes`. Where this side
   * listens the default is 128 KiB, because reading one takes the time of all other tunnels; where it dials, the
   * default is `maxControlBytes`.
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

/** What a tunnel asks of the system about the TCP connections below it, see `loadTcpControl`. */
export interface TunnelTcp {
  /** Sets how many bytes the system keeps for a socket before it sends them (TCP_NOTSENT_LOWAT). */
  limitUnsent(socket: TLSSocket, bytes: number): void;
  /** Tells how far the bytes of a connection have got; undefined if the system does not tell (TCP_INFO). */
  sendProgress(socket: TLSSocket): Progress | undefined;
  /**
   * Bounds the time in ms between two attempts to reach a silent peer (TCP_RTO_MAX_MS), and until the system gives the
   * connection up (TCP_USER_TIMEOUT). Returns false if the system cannot.
   */
  boundRetransmission(socket: TLSSocket, maxWaitMs: number, giveUpMs: number): boolean;
}

/** Options that both sides of a tunnel have, besides its limits. */
export interface TunnelOptions {
  /** What the peer learns about this side, as text of 1 to 256 characters; default `virtual-presence`. */
  readonly software?: string;
  /** Size of the buffers in which packets are collected, in bytes; default 256 KiB. */
  readonly slabBytes?: number;
  /**
   * Keeps the queues of the system as short as those of the tunnel, has it try every second whether a silent peer is
   * back, and keeps a connection whose PING waits behind many bytes in the network from being taken for dead. Default:
   * the system's own settings, and only what waits on this side is known.
   */
  readonly tcp?: TunnelTcp | undefined;
  /** Gives the time for all waits and for the end of certificates; default `systemClock`. */
  readonly clock?: Clock;
}

export interface DialOptions extends Credentials, TunnelLimits, TunnelOptions {
  /**
   * Where to connect: one or more. They are tried by `priority`, and those of one priority in an order that depends on
   * the own identity, so that many sites spread over them. One that has failed lately comes last. If TCP does not connect
   * in 250 ms, the next one is dialled beside it, and the first one that connects is used.
   */
  readonly endpoints: readonly (HostPortInput | RankedHostPort)[];
  /** The identity that the certificate of the listening side must have. Host names are not compared. */
  readonly expectedPeer: GatewayIdentity;
  /**
   * HTTP proxy to connect through, for example `http://user:password@proxy.example.org:3128`, or a function that
   * names one for each endpoint. Default: none; the environment is read with `proxyFromEnvironment` only.
   */
  readonly proxy?: ProxyOption | undefined;
  /** How long to wait before the next attempt to connect; the defaults are 200 and 30,000 ms. */
  readonly backoff?: BackoffOptions;
  /** A tunnel that was up for this time starts again with the shortest wait, in ms; default 10,000. */
  readonly stableAfterMs?: number;
  /** The longest time from the first packet of TCP to WELCOME, in ms; default 10,000. */
  readonly handshakeTimeoutMs?: number;
  /** Connections that may carry packets at a time, as far as the listening side agrees: 1 to 64; default 8. */
  readonly connections?: number;
  /** Gives numbers from 0 to below 1; default `Math.random`. */
  readonly random?: () => number;
}

/** Bounds of the connections whose handshake is under way. */
export interface HandshakeLimits {
  /**
   * Connections whose TLS has begun and whose handshake is under way, at most; default 128. When one more comes, the
   * oldest one of the address that has most of them is terminated; if it is one more of an address that has some, it waits
   * while theirs make progress. Eight times as many may wait for their TLS to begin; more are reset, and so are those that
   * have waited for half of the time that a handshake may take (`handshakeTimeoutMs`).
   */
  readonly maxHandshakes?: number;
  /**
   * New connections a second of one IPv4 address or IPv6 /64, averaged; default 50. Four times as many
   * may come at once. Each connection of a tunnel counts; raise it where many sites share an address.
   */
  readonly maxConnectionRate?: number;
  /** The longest time from the accept to HELLO, and to the host's decision, in ms; default 10,000. */
  readonly handshakeTimeoutMs?: number;
}

export interface ListenOptions extends Credentials, TunnelLimits, HandshakeLimits, TunnelOptions {
  /** Address or name to listen on; default all addresses. */
  readonly host?: string;
  /** 0 to 65535; 0 takes any free one, see `TunnelListener.port`. */
  readonly port: number;
  /**
   * Decides about a verified peer: undefined or a `TunnelAdmission` lets it in, a `TunnelRedirection` sends it
   * elsewhere, and a `TunnelRefusal` refuses it. It is asked for each connection, further ones of a tunnel too, when TLS
   * is done, and again at HELLO, just before the tunnel is up, because what was true then need not be true any more.
   * Only an admission at HELLO says something to the peer.
   *
   * It may answer by a promise. The peer then waits, and its handshake counts as under way: `maxHandshakes`,
   * `handshakeTimeoutMs`, `terminate` and `close` end it as before, and the answer comes too late. A peer is refused with
   * `CloseCode.NotAuthorized`, and `problem` is emitted, if this throws, rejects or answers anything else. A
   * connection that has waited at the step `certificate` is read with one more copy from then on; so answer there at
   * once where that can be done, and ask others at `hello`. Default: lets all in.
   */
  readonly authorize?: (candidate: TunnelCandidate) => AuthorizeAnswer;
  /**
   * What else is served on this port, by its ALPN name; for enrolment that is
   * `{ [EnrolmentServer.alpn]: (socket) => enrolment.handle(socket) }`. The function gets each connection whose
   * client has named that protocol, when TLS is done. Nothing is known of the client: it may have no certificate.
   * The limits on handshakes hold until then; from there on the function bounds the connection, and `close`
   * destroys it if it is still there. Default: nothing.
   */
  readonly otherProtocols?: Readonly<Record<string, (socket: TLSSocket) => void>> | undefined;
  /** Role that peers must have; default `site`. */
  readonly peerRole?: GatewayIdentity['role'];
  /**
   * Connections a second of one identity, averaged; default 2. Further ones are refused with `too-many`:
   * two gateways with one certificate replace one another no faster.
   */
  readonly maxTunnelRate?: number;
  /** Connections of one identity that may come at once; default 20. */
  readonly maxTunnelBurst?: number;
  /** Interval of PING of both sides, in ms: 100 to 600,000; default 10,000. */
  readonly keepaliveMs?: number;
  /** Connections that may carry the packets of one tunnel: 1 to 64; default 8. */
  readonly connections?: number;
  /**
   * How long a tunnel that its peer does not renew may live after the end of its certificate, in ms, because clocks
   * differ; default 60,000. Then it is ended with `untrusted`.
   */
  readonly expiryGraceMs?: number;
  /**
   * Returns how many tunnels there are when all peers are there; it is called for each connection. Peers that have lost
   * their tunnel come back over the time that so many handshakes take. Default: as many as are up.
   */
  readonly expectedTunnels?: (() => number) | undefined;
}

/** What values an option may have. */
interface Limits {
  /** What the value must be, as a message and README.md say it. */
  readonly expected: string;
  /** @throws {ApiMisuseError} if it is something else. */
  check(name: string, value: unknown): void;
}

interface Row<T> {
  /** The value in `DIAL_DEFAULTS` or `LISTEN_DEFAULTS`; undefined without one, or if it depends on another option. */
  readonly default: T | undefined;
  readonly limits: Limits;
  /** Computes the default from the options in the rows above. */
  readonly derive?: (above: Required<TunnelLimits>) => T;
}
type Rows = Readonly<Record<string, Row<unknown>>>;
type RowsOf<Options> = { readonly [K in keyof Options]-?: Row<Options[K]> };

const POSITIVE: Limits = must('a positive integer', (value) => isWithin(value, 1));
const NOT_NEGATIVE: Limits = must('a whole number, 0 or more', (value) => isWithin(value, 0));
const RATE: Limits = must(
  'a number above 0',
  (value) => Number.isFinite(value) && Number(value) > 0
);
const FUNCTION: Limits = must('a function', (value) => typeof value === 'function');
const CONTROL_BYTES: Limits = range(1, MAX_FRAME_PAYLOAD);
/** `SlabPool` checks that the largest packet fits. */
const SLAB_BYTES: Limits = must('a whole number', Number.isSafeInteger);
/** A peer takes no HELLO or WELCOME with a longer text. */
const SOFTWARE: Limits = must(
  'a text of 1 to 256 characters',
  (value) => typeof value === 'string' && value.length >= 1 && value.length <= 256
);
const HOST: Limits = must(
  'an address or a name',
  (value) => typeof value === 'string' && value !== ''
);
const ROLE: Limits = must('site or cloud', (value) => value === 'site' || value === 'cloud');
const CLOCK: Limits = { expected: 'a Clock', check: checkClock };
const BACKOFF: Limits = { expected: 'numbers, 0 or more', check: checkBackoff };
const TCP: Limits = must('an object with the methods of TcpControl', (value) =>
  ['limitUnsent', 'sendProgress', 'boundRetransmission'].every(
    (name) => typeof (value as Record<string, unknown>)[name] === 'function'
  )
);
const PROTOCOLS: Limits = {
  expected: 'functions by their ALPN names',
  check: checkProtocols,
};

const SHARED_ROWS: RowsOf<
  TunnelOptions & TunnelLimits & Pick<DialOptions, 'connections' | 'handshakeTimeoutMs'>
> = {
  software: row('virtual-presence', SOFTWARE),
  slabBytes: row(256 * 1024, SLAB_BYTES),
  connections: row(8, range(1, MAX_CONNECTIONS)),
  handshakeTimeoutMs: row(10_000, RATE),
  clock: row(systemClock, CLOCK),
  tcp: row<TunnelTcp | undefined>(undefined, TCP),
  maxSlabs: row(16, POSITIVE),
  maxControlBytes: row(4 * 1024 * 1024, CONTROL_BYTES),
  maxReceivedControlBytes: derived(({ maxControlBytes }) => maxControlBytes, CONTROL_BYTES),
  maxControlByteRate: derived(({ maxReceivedControlBytes }) => maxReceivedControlBytes, POSITIVE),
  maxControlQueueBytes: derived(({ maxControlBytes }) => 2 * maxControlBytes, POSITIVE),
  maxControlRate: row(100, POSITIVE),
  drainTimeoutMs: row(10_000, POSITIVE),
};

export const DIAL_ROWS: RowsOf<
  Omit<DialOptions, keyof Credentials | 'endpoints' | 'expectedPeer' | 'proxy'>
> = {
  ...SHARED_ROWS,
  stableAfterMs: row(10_000, range(0, Number.MAX_SAFE_INTEGER)),
  backoff: row<BackoffOptions>(DEFAULT_BACKOFF, BACKOFF),
  random: row(Math.random, FUNCTION),
};

export const LISTEN_ROWS: RowsOf<Omit<ListenOptions, keyof Credentials | 'port'>> = {
  ...SHARED_ROWS,
  // A signing request has 64 KiB at most.
  maxReceivedControlBytes: {
    ...row(128 * 1024, CONTROL_BYTES),
    derive: ({ maxControlBytes }) => Math.min(maxControlBytes, 128 * 1024),
  },
  host: row<string>(undefined, HOST),
  authorize: row<NonNullable<ListenOptions['authorize']>>(undefined, FUNCTION),
  otherProtocols: row<ListenOptions['otherProtocols']>(undefined, PROTOCOLS),
  peerRole: row<GatewayIdentity['role']>('site', ROLE),
  maxHandshakes: row(128, POSITIVE),
  maxConnectionRate: row(50, RATE),
  maxTunnelRate: row(2, RATE),
  maxTunnelBurst: row(20, POSITIVE),
  // A peer takes no WELCOME with another one.
  keepaliveMs: row(10_000, range(100, 600_000)),
  expiryGraceMs: row(60_000, NOT_NEGATIVE),
  expectedTunnels: row<ListenOptions['expectedTunnels']>(undefined, FUNCTION),
};

/** The values of options that are left out. */
export const DIAL_DEFAULTS: Readonly<
  Required<
    Pick<DialOptions, 'maxSlabs' | 'maxControlBytes' | 'maxControlRate' | 'drainTimeoutMs'> &
      Pick<DialOptions, 'software' | 'slabBytes' | 'connections' | 'clock' | 'handshakeTimeoutMs'> &
      Pick<DialOptions, 'stableAfterMs' | 'random' | 'backoff'>
  >
> = defaultsOf(DIAL_ROWS) as never;

/** The values of options that are left out. */
export const LISTEN_DEFAULTS: Readonly<
  Omit<typeof DIAL_DEFAULTS, 'stableAfterMs' | 'random' | 'backoff'> &
    Required<
      Pick<ListenOptions, 'maxReceivedControlBytes' | 'maxHandshakes' | 'maxConnectionRate'> &
        Pick<ListenOptions, 'peerRole' | 'maxTunnelRate' | 'maxTunnelBurst' | 'keepaliveMs'> &
        Pick<ListenOptions, 'expiryGraceMs'>
    >
> = defaultsOf(LISTEN_ROWS) as never;

/** What each connection of a tunnel needs; the pool is shared by all connections of one side. */
export interface ConnectionOptions extends Required<TunnelLimits> {
  readonly pool: SlabPool;
  readonly clock: Clock;
  readonly tcp: TunnelTcp | undefined;
}

export interface ResolvedDialOptions extends Omit<typeof DIAL_DEFAULTS, 'backoff'> {
  readonly context: SecureContext;
  readonly endpoints: readonly Required<RankedHostPort>[];
  /** The identity of this side, from its own certificate. */
  readonly identity: GatewayIdentity;
  readonly expectedPeer: GatewayIdentity;
  readonly proxy: ProxyOption | undefined;
  readonly backoff: Required<BackoffOptions>;
  readonly connection: ConnectionOptions;
}

export type ResolvedListenOptions = typeof LISTEN_DEFAULTS & {
  readonly host: string | undefined;
  readonly port: number;
  readonly authorize: ListenOptions['authorize'] | undefined;
  readonly expectedTunnels: ListenOptions['expectedTunnels'];
  readonly credentials: Credentials;
  /** The identity of this side, from its own certificate. */
  readonly identity: GatewayIdentity;
  readonly otherProtocols: ReadonlyMap<string, (socket: TLSSocket) => void>;
  readonly connection: ConnectionOptions;
};

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {ApiMisuseError} naming the option that is not usable.
 * @throws {ConfigError} if an endpoint is not usable, or `proxy` names no proxy that can be used.
 * @throws {CertificateError} if the credentials are unusable, or `expectedPeer` cannot be a gateway.
 */
export function resolveDialOptions(options: DialOptions): ResolvedDialOptions {
  const values = resolve<typeof DIAL_DEFAULTS & ConnectionOptions>(DIAL_ROWS, options);
  const { proxy, expectedPeer } = options;
  const endpoints = endpointsOf(options.endpoints);
  checkPeer(expectedPeer);
  for (const { host, port } of endpoints) proxyFor(proxy, host, port);
  const backoff = { ...DEFAULT_BACKOFF, ...given(values.backoff) };
  const context = secureContext(options);
  const connection = { ...values, pool: new SlabPool(values.slabBytes) };
  const identity = identityOfCertificate(new X509Certificate(options.cert));
  return { ...values, context, endpoints, identity, expectedPeer, proxy, backoff, connection };
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {ApiMisuseError} naming the option that is not usable.
 * @throws {CertificateError} if the credentials are unusable or name no gateway.
 */
export function resolveListenOptions(options: ListenOptions): ResolvedListenOptions {
  const values = resolve<typeof LISTEN_DEFAULTS & ConnectionOptions>(LISTEN_ROWS, options);
  const { key, cert, ca, host, port, authorize, expectedTunnels, otherProtocols = {} } = options;
  range(0, 65_535).check('port', port);
  secureContext(options);
  return {
    ...values,
    credentials: { key, cert, ca },
    identity: identityOfCertificate(new X509Certificate(cert)),
    host,
    port,
    authorize,
    expectedTunnels,
    otherProtocols: new Map(Object.entries(otherProtocols)),
    connection: { ...values, pool: new SlabPool(values.slabBytes) },
  };
}

function row<T>(value: T | undefined, limits: Limits): Row<T> {
  return { default: value, limits };
}

function derived(derive: (above: Required<TunnelLimits>) => number, limits: Limits): Row<number> {
  return { default: undefined, limits, derive };
}

function defaultsOf(rows: Rows): Readonly<Record<string, unknown>> {
  const values = Object.entries(rows).map(([name, row]) => [name, row.default] as const);
  return Object.freeze(Object.fromEntries(values.filter(([, value]) => value !== undefined)));
}

/** Checks the options that have a row, and fills in the defaults. An option that is undefined counts as left out. */
function resolve<Values>(rows: Rows, options: object): Values {
  checkOptions(options);
  const passed = options as Readonly<Record<string, unknown>>;
  const values: Record<string, unknown> = {};
  for (const [name, { limits, derive, default: value }] of Object.entries(rows)) {
    if (passed[name] === undefined) {
      values[name] = derive === undefined ? value : derive(values as never);
    } else {
      limits.check(name, passed[name]);
      values[name] = passed[name];
    }
  }
  return values as Values;
}

function range(first: number, last: number): Limits {
  const expected = `a whole number from ${first} to ${last}`;
  return must(expected, (value) => isWithin(value, first, last));
}

/** @throws {ApiMisuseError} if the caller has passed no options at all. */
function checkOptions(options: unknown): void {
  checkThat('the options', options, typeof options === 'object' && options !== null, 'an object');
}

/** Returns the options without those that are undefined, which count as left out. */
function given<T extends object>(options: T): T {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as T;
}

function must(expected: string, isOk: (value: unknown) => boolean): Limits {
  return { expected, check: (name, value) => void checkThat(name, value, isOk(value), expected) };
}

function isWithin(value: unknown, first: number, last: number = Number.MAX_SAFE_INTEGER): boolean {
  return Number.isInteger(value) && Number(value) >= first && Number(value) <= last;
}

function checkClock(name: string, value: unknown): void {
  for (const method of ['wallMs', 'monotonicMs', 'after'] as const) {
    if (typeof (value as Partial<Clock> | null)?.[method] === 'function') continue;
    throw new ApiMisuseError(`${name} must be a Clock, but its ${method} is no function`);
  }
}

function checkBackoff(name: string, value: unknown): void {
  checkOptions(value);
  const { minMs, maxMs } = { ...DEFAULT_BACKOFF, ...given(value as BackoffOptions) };
  for (const [key, ms] of Object.entries({ minMs, maxMs })) {
    checkThat(`${name}.${key}`, ms, Number.isFinite(ms) && ms >= 0, 'a number, 0 or more');
  }
}

function checkProtocols(name: string, value: unknown): void {
  const isObject = typeof value === 'object' && value !== null;
  for (const [alpn, serve] of Object.entries(
    checkThat(name, value, isObject, PROTOCOLS.expected) as object
  )) {
    const isName = /^[\x21-\x7e]{1,255}$/.test(alpn) && alpn !== ALPN_PROTOCOL;
    if (isName && typeof serve === 'function') continue;
    throw new ApiMisuseError(
      `${name} must have ALPN names other than ${ALPN_PROTOCOL} and functions, not ${JSON.stringify(alpn)}`
    );
  }
}

function endpointsOf(endpoints: unknown): readonly Required<RankedHostPort>[] {
  checkThat('endpoints', endpoints, Array.isArray(endpoints), 'a list of hosts and ports');
  const list = endpoints as readonly unknown[];
  if (list.length === 0) throw new ApiMisuseError('there is no endpoint to dial');
  return list.map((endpoint, i) => parseSchema(RankedHostPortSchema, endpoint, `endpoints[${i}]`));
}

function checkPeer(peer: unknown): void {
  const { trustDomain, role, site } = (peer ?? {}) as Readonly<Record<string, unknown>>;
  const isSite = role === 'site' && typeof site === 'string';
  if (typeof trustDomain !== 'string' || !(isSite || role === 'cloud')) {
    throw new ApiMisuseError(
      'expectedPeer must name a trustDomain and the role cloud, or the role site and a site'
    );
  }
  formatIdentity(peer as GatewayIdentity);
}
