/**
 * The options of TCP sockets and servers, and the arguments of `connect` and `listen` in all their forms.
 * @module
 */
import { isIP, type LookupFunction } from 'node:net';
import { inspect } from 'node:util';
import {
  argumentError,
  checkCallback,
  checkMs,
  checkName,
  checkPort,
  checkSignal,
  familyOption,
  wrongType,
} from '../node/argument-checks.ts';

/** How bytes are delivered into memory that the program owns, as `onread` of `net.Socket`. */
export interface OnReadOptions {
  /** The memory that each read fills from its start, or a function that returns memory for the next one. */
  readonly buffer: Uint8Array | (() => Uint8Array);
  /** Is called with the count of bytes that are in the buffer; `false` pauses until `resume()`. */
  callback(bytesRead: number, buffer: Uint8Array): boolean;
}

/** The options of `new PresenceSocket`. */
export interface PresenceSocketOptions {
  /** Whether the writable side stays open when the other end has ended; without it, it ends too. */
  readonly allowHalfOpen?: boolean | undefined;
  /** Whether small segments are sent at once; without it, Nagle's algorithm collects them. */
  readonly noDelay?: boolean | undefined;
  /** Whether an idle peer is probed; without it, it is not. */
  readonly keepAlive?: boolean | undefined;
  /** The idle time in ms before the first probe, in whole seconds; without it, or with 0, it is 2 h. */
  readonly keepAliveInitialDelay?: number | undefined;
  /** Delivers into memory of the program; without it, `data` events have buffers of their own. */
  readonly onread?: OnReadOptions | undefined;
  /** Destroys the socket with an AbortError; without it, nothing does. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes that the stream holds in each direction, besides the buffers of TCP; without it, as Node. */
  readonly highWaterMark?: number | undefined;
  /** Bytes that wait to be read; without it, `highWaterMark`. */
  readonly readableHighWaterMark?: number | undefined;
  /** Bytes from which on `write` returns false; without it, `highWaterMark`. */
  readonly writableHighWaterMark?: number | undefined;
}

/** The options of `socket.connect`. */
export interface PresenceConnectOptions {
  readonly port: number | string;
  /** A name of the site's zone or an address; without it `localhost`, as Node, which a zone hardly has. */
  readonly host?: string | undefined;
  /** The IP version; without it both. */
  readonly family?: 0 | 4 | 6 | 'IPv4' | 'IPv6' | number | undefined;
  /** The stack's own address, which also chooses the family; without it, the address of the family. */
  readonly localAddress?: string | undefined;
  /** The own port; without it a free one. */
  readonly localPort?: number | undefined;
  /** Finds the addresses; without it, the site's zone does. */
  readonly lookup?: LookupFunction | undefined;
  /** Is passed on to `lookup`; without it 0. */
  readonly hints?: number | undefined;
  /** Whether the other addresses of a name are tried when one fails; without it they are. */
  readonly autoSelectFamily?: boolean | undefined;
  /** After how many ms without an answer the next address is tried; without it 2,000. The last one has no such limit. */
  readonly autoSelectFamilyAttemptTimeout?: number | undefined;
  /** How many ms the whole of connecting may take; without it TCP gives up after 127 s. */
  readonly connectTimeout?: number | undefined;
  /** How many ms data may stay unacknowledged (RFC 5482); without it 924 s. */
  readonly userTimeout?: number | undefined;
  /** Destroys the socket with an AbortError; without it, nothing does. */
  readonly signal?: AbortSignal | undefined;
}

/** The options of `sockets.connect`. */
export interface PresenceNetConnectOptions extends PresenceConnectOptions, PresenceSocketOptions {
  /** The idle time in ms after which `timeout` is emitted; without it, it is not. */
  readonly timeout?: number | undefined;
}

/** The options of `server.listen`. */
export interface PresenceListenOptions {
  /** 0 takes a free port; so it is without it, if the property is there. */
  readonly port?: number | string | null | undefined;
  /** The stack's own address; without it, all of its addresses. */
  readonly host?: string | undefined;
  /** How many connections may wait for the server; without it 511. */
  readonly backlog?: number | undefined;
  /** Closes the server; without it, only `close` does. */
  readonly signal?: AbortSignal | undefined;
}

type Callback = () => void;

/** What `connect` was asked for. */
export interface ConnectTarget {
  readonly host: string;
  readonly port: number;
  readonly family: 0 | 4 | 6;
  readonly options: PresenceConnectOptions;
}

/**
 * Separates the forms `(options[, listener])`, `(port[, host][, listener])` and `(path[, listener])`.
 *
 * @returns the options as an object, and the listener.
 */
export function normalizeArguments<Options extends object>(
  args: readonly unknown[]
): [options: Options, listener: Callback | undefined] {
  const [first, second] = args;
  const last = args.at(-1);
  const listener = typeof last === 'function' ? (last as Callback) : undefined;
  if (typeof first === 'object' && first !== null) return [first as Options, listener];
  if (typeof first === 'string' && !(Number(first) >= 0))
    return [{ path: first } as never, listener];
  if (typeof first === 'function' || args.length === 0) return [{} as Options, listener];
  const host = typeof second === 'string' ? second : undefined;
  return [{ port: first, host } as never, listener];
}

/** @throws Node's errors if the options of `connect` are wrong. */
export function connectTarget(options: PresenceConnectOptions): ConnectTarget {
  const { port, host, localAddress, localPort, lookup } = options;
  refusePath(options);
  if (port === undefined) {
    throw argumentError(
      TypeError,
      'ERR_MISSING_ARGS',
      'The "options.port" argument must be specified'
    );
  }
  if (localAddress && isIP(localAddress) === 0) {
    throw argumentError(TypeError, 'ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${localAddress}`);
  }
  if (localPort) {
    if (typeof localPort !== 'number') throw wrongType('options.localPort', 'number', localPort);
    checkPort('options.localPort', localPort);
  }
  if (lookup != null) checkCallback('options.lookup', lookup);
  const wanted = familyOption(options.family);
  return {
    host: checkName('options.host', host) ?? 'localhost',
    port: checkPort('options.port', port),
    family: wanted === 0 && localAddress ? (isIP(localAddress) as 4 | 6) : wanted,
    options: {
      ...options,
      localPort: localPort || 0,
      connectTimeout: optionalMs('options.connectTimeout', options.connectTimeout),
      userTimeout: optionalMs('options.userTimeout', options.userTimeout),
      autoSelectFamilyAttemptTimeout: optionalMs(
        'options.autoSelectFamilyAttemptTimeout',
        options.autoSelectFamilyAttemptTimeout
      ),
    },
  };
}

/** Returns the port and the backlog that `listen` was asked for. @throws Node's errors if the arguments are wrong. */
export function listenTarget(
  args: readonly unknown[],
  options: PresenceListenOptions
): { port: number; host: string | undefined; backlog: number } {
  refusePath(options);
  const isPortOmitted = args.length === 0 || typeof args[0] !== 'object' || args[0] === null;
  if (options.port == null && !isPortOmitted && !('port' in options)) {
    throw argumentError(
      TypeError,
      'ERR_INVALID_ARG_VALUE',
      `The argument 'options' must have the property "port". Received ${inspect(options)}`
    );
  }
  checkSignal(options.signal);
  // The forms are (port, backlog) and (port, host, backlog).
  const count = Number(options.backlog ?? args.slice(1).find((arg) => Number(arg) >= 0));
  return {
    port: checkPort('options.port', options.port ?? 0),
    host: checkName('options.host', options.host),
    backlog: count > 0 ? count : DEFAULT_BACKLOG,
  };
}

/** Returns the options of the Duplex. */
export function streamOptions(options: PresenceSocketOptions): Record<string, unknown> {
  const { highWaterMark, readableHighWaterMark, writableHighWaterMark } = options;
  // `close` is emitted here, with whether there was an error.
  const result: Record<string, unknown> = {
    allowHalfOpen: Boolean(options.allowHalfOpen),
    emitClose: false,
  };
  if (highWaterMark !== undefined) result.highWaterMark = highWaterMark;
  if (readableHighWaterMark !== undefined) result.readableHighWaterMark = readableHighWaterMark;
  if (writableHighWaterMark !== undefined) result.writableHighWaterMark = writableHighWaterMark;
  return result;
}

/** Returns the option `onread` if it is complete; Node ignores it otherwise. */
export function checkedOnRead(onread: OnReadOptions | undefined): OnReadOptions | undefined {
  if (typeof onread !== 'object' || onread === null) return undefined;
  const isBuffer = onread.buffer instanceof Uint8Array || typeof onread.buffer === 'function';
  return isBuffer && typeof onread.callback === 'function' ? onread : undefined;
}

/** Returns the time in ms before the first keepalive probe; 0 without keepalive. */
export function keepAliveMs(enable: boolean | undefined, initialDelay = 0): number {
  if (!enable) return 0;
  const seconds = Math.min(Math.trunc(initialDelay / 1000), MAX_KEEP_ALIVE_S);
  return seconds > 0 ? seconds * 1000 : KEEP_ALIVE_MS;
}

/** @throws Node's errors if the options of a socket that hold for all accepted ones of a server are wrong. */
export function checkSocketOptions(options: PresenceSocketOptions): void {
  const { keepAliveInitialDelay: delay } = options;
  if (delay !== undefined && typeof delay !== 'number') {
    throw wrongType('options.keepAliveInitialDelay', 'number', delay);
  }
  for (const name of HIGH_WATER_MARKS) {
    const size: unknown = options[name];
    if (size == null || (Number.isInteger(size) && (size as number) >= 0)) continue;
    throw argumentError(
      TypeError,
      'ERR_INVALID_ARG_VALUE',
      `The property 'options.${name}' is invalid. Received ${inspect(size)}`
    );
  }
}

/** Whole ms, which a timer can count. */
function optionalMs(name: string, ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.ceil(checkMs(name, ms));
}

/** Pipes, handles and descriptors belong to the operating system. */
function refusePath(options: object): void {
  for (const name of ['path', 'fd', 'handle', '_handle']) {
    const value: unknown = (options as Record<string, unknown>)[name];
    if (value != null) {
      throw argumentError(
        TypeError,
        'ERR_INVALID_ARG_VALUE',
        `The property 'options.${name}' is not supported. Received ${inspect(value)}`
      );
    }
  }
}

const HIGH_WATER_MARKS = [
  'highWaterMark',
  'readableHighWaterMark',
  'writableHighWaterMark',
] as const;
/** Node's default. */
const DEFAULT_BACKLOG = 511;
/** The time before the first keepalive probe that Linux has by default. */
const KEEP_ALIVE_MS = 7_200_000;
/** The longest time that Linux takes. */
const MAX_KEEP_ALIVE_S = 32_767;
