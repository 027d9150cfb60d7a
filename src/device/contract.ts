/**
 * The checks of the `PacketDevice` contract that all devices share.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { DeviceCounters } from './device.ts';

/** Bytes that `read` needs: the virtio-net header and the longest packet. */
export const MAX_FRAME_LENGTH: number = VNET_HEADER_LENGTH + MAX_PACKET_LENGTH;

export const DEFAULT_MTU = 1500;

export function newDeviceCounters(): DeviceCounters {
  return { readPackets: 0, readBytes: 0, writtenPackets: 0, writtenBytes: 0, writeDrops: 0 };
}

/** @throws {ApiMisuseError} if the longest packet does not fit behind `offset`. */
export function checkReadRange(buffer: Buffer, offset: number): void {
  if (offset >>> 0 !== offset || offset + MAX_FRAME_LENGTH > buffer.length) {
    throw new ApiMisuseError(
      `read at ${offset} needs ${MAX_FRAME_LENGTH} bytes of a buffer of ${buffer.length}`
    );
  }
}

/**
 * Checks the range that `write` gets, and that it begins with a virtio-net header.
 *
 * @throws {ApiMisuseError} if the range is not within the buffer, or begins with an IP packet. A frame that a
 *   translator or a `SiteFilter` has passed never begins so.
 */
export function checkWrite(buffer: Buffer, offset: number, length: number): void {
  if (offset >>> 0 !== offset || length >>> 0 !== length || offset + length > buffer.length) {
    throw new ApiMisuseError(
      `write of ${length} bytes at ${offset} is not within a buffer of ${buffer.length}`
    );
  }
  if (length === 0) return;
  const version = buffer[offset]! >>> 4;
  if (version === 4 || version === 6) {
    throw new ApiMisuseError(
      `write at ${offset} begins with an IPv${version} packet: put a virtio-net header of ${VNET_HEADER_LENGTH} bytes in front of it, all zero for a packet whose checksums are complete`
    );
  }
}

/**
 * Returns whether the device can take a frame (virtio-net header and packet). The packet must not be
 * empty. Without offload it must not be longer than the MTU, and its virtio-net header must be zero.
 */
export function isAcceptable(
  buffer: Buffer,
  offset: number,
  length: number,
  offload: boolean,
  mtu: number
): boolean {
  if (length <= VNET_HEADER_LENGTH) return false;
  if (offload) return length <= MAX_FRAME_LENGTH;
  if (length > VNET_HEADER_LENGTH + mtu) return false;
  let bits = 0;
  for (let i = offset; i < offset + VNET_HEADER_LENGTH; i++) bits |= buffer[i]!;
  return bits === 0;
}

/** @throws {ApiMisuseError} if the value is not a whole number from `min` to `max`. */
export function checkWhole(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new ApiMisuseError(`${name} must be a whole number from ${min} to ${max}, not ${value}`);
  }
}

/** @throws {ApiMisuseError} if the value is given and has another type, which plain JavaScript allows. */
export function checkType(name: string, value: unknown, type: TypeName): void {
  if (value !== undefined) checkGiven(name, value, type);
}

/** @throws {ApiMisuseError} if the value is missing or has another type. */
export function checkGiven(name: string, value: unknown, type: TypeName): void {
  const isOfType = type === 'array' ? Array.isArray(value) : typeof value === type;
  if (isOfType && value !== null) return;
  const given = value === null || typeof value !== 'object' ? String(value) : 'an object';
  throw new ApiMisuseError(`${name} must be ${TYPE_NAMES[type]}, not ${given}`);
}

/** @throws {ApiMisuseError} if the value is given and is not a list of texts. */
export function checkTexts(name: string, value: unknown): void {
  checkType(name, value, 'array');
  for (const [index, each] of ((value ?? []) as unknown[]).entries()) {
    checkGiven(`${name}[${index}]`, each, 'string');
  }
}

/** @throws {ApiMisuseError} if no IPv4 network could have this MTU ([RFC 791](https://www.rfc-editor.org/rfc/rfc791#section-3.2)). */
export function checkMtu(mtu: number, max: number = MAX_PACKET_LENGTH): void {
  checkWhole('mtu', mtu, MIN_MTU, max);
}

const MIN_MTU = 68;
type TypeName = keyof typeof TYPE_NAMES;
const TYPE_NAMES = {
  array: 'a list',
  boolean: 'true or false',
  function: 'a function',
  object: 'an object',
  string: 'a text',
} as const;
