/**
 * The arguments of `send` and `bind` of a datagram socket in all their forms, as `dgram.Socket` takes them, and Node's
 * own errors for wrong ones.
 * @module
 */
import { inspect } from 'node:util';
import { argumentError, checkName, checkPort, wrongType } from '../node/argument-checks.ts';

/** What `send` takes as one datagram. */
export type DatagramPayload =
  | string
  | NodeJS.ArrayBufferView
  | readonly (string | NodeJS.ArrayBufferView)[];

export type SendCallback = (error: Error | null, bytes: number) => void;

/** The options of `bind`. */
export interface PresenceDatagramBindOptions {
  /** Default: a random port that is free. */
  readonly port?: number | undefined;
  /** An address of the stack; default: all of them. */
  readonly address?: string | undefined;
}

/** What `send` was asked for. */
export interface SendArguments {
  /** A copy of the bytes. */
  readonly payload: Uint8Array;
  /** 0 if the socket is connected. */
  readonly port: number;
  readonly address: string | undefined;
  readonly callback: SendCallback | undefined;
}

/**
 * Separates the forms `(msg[, port[, address]][, callback])` and
 * `(msg, offset, length[, port[, address]][, callback])`; a connected socket has neither port nor address.
 *
 * @throws {TypeError | RangeError} as `dgram.Socket.send`.
 */
export function sendArguments(args: readonly unknown[], isConnected: boolean): SendArguments {
  const [message] = args;
  let [, offset, length, port, address, callback] = args;
  let isSliced: boolean;
  if (isConnected) {
    isSliced = typeof length === 'number';
    if (!isSliced) callback = offset;
    else if (typeof port === 'function') [port, callback] = [undefined, port];
    if (port || address) throw isConnectedError();
  } else {
    isSliced = Boolean(address) || (Boolean(port) && typeof port !== 'function');
    if (!isSliced) [port, address, callback] = [offset, length, port];
    if (typeof port === 'function') [port, callback] = [undefined, port];
    if (typeof address === 'function') [address, callback] = [undefined, address];
  }
  const payload = payloadOf(isSliced ? sliceOf(message, offset, length) : message);
  const remotePort = isConnected ? 0 : checkRemotePort(port);
  return {
    payload,
    port: remotePort,
    address: checkName('address', address),
    callback: typeof callback === 'function' ? (callback as SendCallback) : undefined,
  };
}

/**
 * Separates the forms `([port[, address]][, callback])` and `(options[, callback])`. The address is empty if there is
 * none.
 *
 * @throws {TypeError | RangeError} if they are wrong.
 */
export function bindArguments(args: readonly unknown[]): { port: number; address: string } {
  const [first, second] = args;
  const options = (typeof first === 'object' && first !== null ? first : {}) as {
    port?: unknown;
    address?: unknown;
    fd?: unknown;
  };
  if (options.fd !== undefined) {
    const text = "The property 'options.fd' is not supported";
    throw argumentError(TypeError, 'ERR_INVALID_ARG_VALUE', text);
  }
  const port = typeof first === 'number' || typeof first === 'string' ? first : options.port;
  const address = typeof second === 'string' ? second : options.address;
  return {
    port: checkPort('options.port', port || 0),
    address: checkName('options.address', address) ?? '',
  };
}

/** @throws {RangeError} ERR_SOCKET_BAD_PORT. */
export function checkRemotePort(port: unknown): number {
  const isText = typeof port === 'string' && port.trim() !== '';
  const value = isText || typeof port === 'number' ? Number(port) : Number.NaN;
  if (Number.isInteger(value) && value > 0 && value <= 65_535) return value;
  throw argumentError(
    RangeError,
    'ERR_SOCKET_BAD_PORT',
    `Port should be > 0 and < 65536. Received ${inspect(port)}.`
  );
}

export function isConnectedError(): Error {
  return argumentError(Error, 'ERR_SOCKET_DGRAM_IS_CONNECTED', 'Already connected');
}

function sliceOf(message: unknown, offset: unknown, length: unknown): Uint8Array {
  const bytes = bytesOf(message);
  if (bytes === undefined) throw wrongMessage('buffer', message);
  const from = Number(offset) >>> 0;
  const count = Number(length) >>> 0;
  for (const [name, end] of [
    ['offset', from],
    ['length', from + count],
  ] as const) {
    if (end > bytes.length) {
      const text = `"${name}" is outside of buffer bounds`;
      throw argumentError(RangeError, 'ERR_BUFFER_OUT_OF_BOUNDS', text);
    }
  }
  return bytes.subarray(from, from + count);
}

function payloadOf(source: unknown): Uint8Array {
  if (!Array.isArray(source)) {
    const bytes = bytesOf(source);
    if (bytes === undefined) throw wrongMessage('buffer', source);
    return Buffer.from(bytes);
  }
  const parts = source.map((each: unknown) => {
    const bytes = bytesOf(each);
    if (bytes === undefined) throw wrongMessage('buffer list arguments', source);
    return bytes;
  });
  return Buffer.concat(parts);
}

function bytesOf(source: unknown): Uint8Array | undefined {
  if (typeof source === 'string') return Buffer.from(source);
  if (!ArrayBuffer.isView(source)) return undefined;
  return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
}

function wrongMessage(name: string, value: unknown): Error {
  return wrongType(name, 'string, Buffer, TypedArray or DataView', value);
}
