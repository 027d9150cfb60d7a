/**
 * System errors as Node writes them: `code`, the negative `errno` of libuv, `syscall`, `address` and `port`. Programs
 * that use sockets test these, so the sockets throw no `PresenceError` for what happens to a connection.
 * @module
 */
import { getSystemErrorMap } from 'node:util';

/** An error of a call of the operating system, or of what stands for it here. */
export interface SystemError extends Error {
  /** For example `ECONNREFUSED`. */
  code: string;
  /** The negative number that libuv has for the code on this platform. */
  errno: number;
  /** `connect`, `bind`, `listen`, `read`, `write`, `getaddrinfo` and so on. */
  syscall: string;
  address?: string;
  port?: number;
  /** The name that was looked up. */
  hostname?: string;
}

/** What an error says beside its code. */
export interface ErrorPlace {
  /** The far address, or the name if no address is known yet. */
  readonly address?: string | undefined;
  readonly port?: number | undefined;
  /** Our own end as text, when it has to do with the error. */
  readonly local?: string | undefined;
  /** Why it happened, for example that the site was revoked. */
  readonly cause?: unknown;
}

/** Returns for example `connect ECONNREFUSED 10.0.0.5:80`. */
export function systemError(code: string, syscall: string, place: ErrorPlace = {}): SystemError {
  return assemble(code, syscall, `${syscall} ${code}${placeOf(place)}`, place);
}

/** Returns an error of `listen` and `bind`, which Node words: `listen EADDRINUSE: address already in use :::80`. */
export function listenError(code: string, syscall: string, place: ErrorPlace): SystemError {
  const [, text] = errorOf(code);
  return assemble(code, syscall, `${syscall} ${code}: ${text}${placeOf(place)}`, place);
}

/** Returns an error of `dns.lookup`, for example `getaddrinfo ENOTFOUND nova.openstack.test`. */
export function lookupError(code: string, hostname: string, cause?: unknown): SystemError {
  const error = assemble(code, 'getaddrinfo', `getaddrinfo ${code} ${hostname}`, { cause });
  error.hostname = hostname;
  return error;
}

/** Returns the ENETDOWN of a stack that is not up as an error of this call; any other error as it is. */
export function downError(reason: unknown, syscall: string, place: ErrorPlace): unknown {
  if (!hasCode(reason, 'ENETDOWN')) return reason;
  const cause = (reason as Error).cause ?? reason;
  return systemError('ENETDOWN', syscall, { ...place, cause });
}

/** Returns whether an error has this `code`. */
export function hasCode(error: unknown, code: string): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && error.code === code;
}

function assemble(
  code: string,
  syscall: string,
  message: string,
  { address, port, cause }: ErrorPlace
): SystemError {
  const error = new Error(message, cause === undefined ? undefined : { cause }) as SystemError;
  error.errno = errorOf(code)[0];
  error.code = code;
  error.syscall = syscall;
  if (address !== undefined) error.address = address;
  if (port) error.port = port;
  return error;
}

function placeOf({ address, port, local }: ErrorPlace): string {
  const far = port ? ` ${address}:${port}` : address ? ` ${address}` : '';
  return local === undefined ? far : `${far} - Local (${local})`;
}

/** The number and the text of each code. */
let errors: Map<string, readonly [errno: number, text: string]> | undefined;

function errorOf(code: string): readonly [errno: number, text: string] {
  if (errors === undefined) {
    errors = new Map();
    for (const [errno, [name, text]] of getSystemErrorMap()) errors.set(name, [errno, text]);
  }
  // Node calls EAI_NONAME of `getaddrinfo` ENOTFOUND.
  return errors.get(code === 'ENOTFOUND' ? 'EAI_NONAME' : code) ?? [0, 'unknown error'];
}
