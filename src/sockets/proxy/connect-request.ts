/**
 * The parts of an HTTP CONNECT request ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6)) that Node's
 * parser leaves as text, and the answers to it. It opens nothing.
 * @module
 */
import { STATUS_CODES } from 'node:http';
import { isIPv6 } from 'node:net';
import { formatHostPort, type HostPort } from '../../base/host-port.ts';
import type { DialReply } from './proxy-outcome.ts';

/**
 * Returns the target of a request, `host:port` or `[IPv6 address]:port` (RFC 9112 section 3.2.3); undefined if it is
 * another text. There is no default port (RFC 9110 section 9.3.6), and port 0 is none.
 */
export function parseAuthority(text: string): HostPort | undefined {
  const parts = AUTHORITY.exec(text);
  if (parts === null) return undefined;
  const [, address, name, digits] = parts;
  const port = Number(digits);
  if (port < 1 || port > MAX_PORT) return undefined;
  if (address !== undefined && !isIPv6(address)) return undefined;
  return { host: address ?? name!, port };
}

/**
 * Returns the user name and the password of a header `Proxy-Authorization`, in the scheme `Basic`
 * ([RFC 7617](https://www.rfc-editor.org/rfc/rfc7617#section-2)); undefined if there is no such header, or it is of
 * another scheme or wrong.
 */
export function parseBasic(
  header: string | undefined
): { readonly username: Buffer; readonly password: Buffer } | undefined {
  const encoded = BASIC.exec(header ?? '')?.[1];
  if (encoded === undefined) return undefined;
  const pair = Buffer.from(encoded, 'base64');
  const colon = pair.indexOf(COLON);
  if (colon < 0) return undefined;
  return { username: pair.subarray(0, colon), password: pair.subarray(colon + 1) };
}

/** The answer behind which the connection is a tunnel. It has no body, and no header that speaks of one. */
export const CONNECT_ACCEPTED: Buffer = Buffer.from('HTTP/1.1 200 Connection Established\r\n\r\n');

/** Why a request is not carried out. */
export type ConnectRefusal =
  | 'unauthenticated'
  | 'wrongCredentials'
  | 'unsupported'
  | 'malformed'
  | 'tooLarge'
  | 'tooSlow';

/** Returns the answer to a request that is not carried out. The connection must be closed behind it. */
export function connectRefused(reason: ConnectRefusal): Buffer {
  const [status, sentence, ...headers] = REFUSALS[reason];
  return answer(status, sentence, headers);
}

/** Returns the answer that the target cannot be reached, with the reason as RFC 9209 has it. */
export function connectFailed(target: HostPort, { status, error, text }: DialReply): Buffer {
  return answer(status, `${formatHostPort(target)} ${text}.`, [
    `Proxy-Status: virtual-presence; error=${error}`,
  ]);
}

function answer(status: number, sentence: string, headers: readonly string[] = []): Buffer {
  const body = `${sentence}\n`;
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    ...headers,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ];
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`);
}

/** RFC 9110 section 15.5.8 demands a challenge. */
const CHALLENGE = 'Proxy-Authenticate: Basic realm="virtual-presence", charset="UTF-8"';
const REFUSALS: Readonly<
  Record<ConnectRefusal, readonly [status: number, sentence: string, ...headers: string[]]>
> = {
  unauthenticated: [407, 'This proxy asks for a user name and a password.', CHALLENGE],
  wrongCredentials: [407, 'The user name or the password is wrong.', CHALLENGE],
  // RFC 9110 section 15.5.6 demands the list of methods.
  unsupported: [405, 'This proxy has no other method than CONNECT.', 'Allow: CONNECT'],
  malformed: [400, 'This is no request of HTTP with a target host:port.'],
  tooLarge: [431, 'The header of the request is too long.'],
  tooSlow: [408, 'The request was not complete in time.'],
};
const MAX_PORT = 65_535;
const COLON = 0x3a;
const AUTHORITY = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]{1,255})):(\d{1,5})$/i;
const BASIC = /^Basic +([a-z0-9+/]+={0,2}) *$/i;
