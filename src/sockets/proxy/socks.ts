/**
 * SOCKS5 as a server speaks it: [RFC 1928](https://www.rfc-editor.org/rfc/rfc1928) with the method user name and
 * password of [RFC 1929](https://www.rfc-editor.org/rfc/rfc1929). It opens nothing and reads no clock: bytes in, the
 * next step out.
 *
 * 1. The client offers its methods; the server chooses one (RFC 1928 section 3).
 * 2. With the method user name and password, the client sends both (RFC 1929 section 2).
 * 3. The client says what it wants (RFC 1928 section 4), and the server replies (section 6).
 *
 * The longest handshake has 1,032 bytes. There is no GSSAPI, which RFC 1928 demands and hardly a client has.
 * @module
 */
import { IpAddress } from '../../base/address.ts';
import type { HostPort } from '../../base/host-port.ts';

/** Why a client is refused before it is known whether the target can be reached. */
export type SocksRefusal = 'unauthenticated' | 'wrongCredentials' | 'unsupported' | 'malformed';

/** What a server does next. `length` bytes are used up; those behind them belong to what follows. */
export type SocksStep =
  /** The message is not complete. */
  | { readonly kind: 'wait' }
  /** Send the reply; the handshake goes on. */
  | { readonly kind: 'continue'; readonly length: number; readonly reply: Buffer }
  /** The request is complete. The port may be 0. */
  | { readonly kind: 'connect'; readonly length: number; readonly target: HostPort }
  /** Send the reply, if it is not empty, and close. */
  | { readonly kind: 'refuse'; readonly outcome: SocksRefusal; readonly reply: Buffer };

/** Says whether a user name and a password are right; undefined if none are asked for. */
export type CredentialCheck = ((username: Buffer, password: Buffer) => boolean) | undefined;

/** The handshake of one client, whose first byte is `SOCKS5`. */
export class SocksHandshake {
  readonly #isValid: CredentialCheck;
  #state: 'methods' | 'credentials' | 'request' = 'methods';

  constructor(isValid: CredentialCheck) {
    this.#isValid = isValid;
  }

  /** @param bytes what the client has sent and no step has used up yet */
  next(bytes: Buffer): SocksStep {
    if (this.#state === 'methods') return this.#readMethods(bytes);
    return this.#state === 'credentials' ? this.#readCredentials(bytes) : readRequest(bytes);
  }

  /** `VER NMETHODS METHODS` */
  #readMethods(bytes: Buffer): SocksStep {
    if (bytes.length < 2) return WAIT;
    const length = 2 + bytes[1]!;
    if (bytes.length < length) return WAIT;
    const needed = this.#isValid === undefined ? Method.None : Method.UserPassword;
    if (!bytes.subarray(2, length).includes(needed)) {
      const outcome = length === 2 ? 'malformed' : 'unauthenticated';
      return { kind: 'refuse', outcome, reply: Buffer.of(SOCKS5, Method.NoneAcceptable) };
    }
    this.#state = this.#isValid === undefined ? 'request' : 'credentials';
    return { kind: 'continue', length, reply: Buffer.of(SOCKS5, needed) };
  }

  /** `VER ULEN UNAME PLEN PASSWD` */
  #readCredentials(bytes: Buffer): SocksStep {
    if (bytes.length < 1) return WAIT;
    const refusal = Buffer.of(CREDENTIALS_VERSION, CREDENTIALS_WRONG);
    if (bytes[0] !== CREDENTIALS_VERSION) {
      return { kind: 'refuse', outcome: 'malformed', reply: refusal };
    }
    if (bytes.length < 2) return WAIT;
    const passwordAt = 2 + bytes[1]! + 1;
    if (bytes.length < passwordAt) return WAIT;
    const length = passwordAt + bytes[passwordAt - 1]!;
    if (bytes.length < length) return WAIT;
    const username = bytes.subarray(2, passwordAt - 1);
    if (!this.#isValid!(username, bytes.subarray(passwordAt, length))) {
      return { kind: 'refuse', outcome: 'wrongCredentials', reply: refusal };
    }
    this.#state = 'request';
    return { kind: 'continue', length, reply: Buffer.of(CREDENTIALS_VERSION, CREDENTIALS_RIGHT) };
  }
}

/** `VER CMD RSV ATYP DST.ADDR DST.PORT` */
function readRequest(bytes: Buffer): SocksStep {
  if (bytes.length < ADDRESS_AT) return WAIT;
  const [version, command, reserved, type] = bytes;
  if (version !== SOCKS5 || reserved !== 0) return refuse('malformed', SocksReply.GeneralFailure);
  if (command !== CONNECT) return refuse('unsupported', SocksReply.CommandNotSupported);
  const host = readHost(bytes, type!);
  if (host === undefined) return WAIT;
  if (host === 'unsupported') return refuse('unsupported', SocksReply.AddressTypeNotSupported);
  const length = host.end + 2;
  if (bytes.length < length) return WAIT;
  if (host.text === undefined) return refuse('malformed', SocksReply.GeneralFailure);
  const target = { host: host.text, port: bytes.readUInt16BE(host.end) };
  return { kind: 'connect', length, target };
}

/** Returns undefined if bytes are missing. The text is undefined if it cannot be a name. */
function readHost(
  bytes: Buffer,
  type: number
): { readonly text: string | undefined; readonly end: number } | 'unsupported' | undefined {
  if (type === AddressType.Name) {
    if (bytes.length <= ADDRESS_AT) return undefined;
    const end = ADDRESS_AT + 1 + bytes[ADDRESS_AT]!;
    const text = bytes.toString('latin1', ADDRESS_AT + 1, end);
    return { text: VISIBLE.test(text) ? text : undefined, end };
  }
  if (type !== AddressType.IPv4 && type !== AddressType.IPv6) return 'unsupported';
  const family = type === AddressType.IPv4 ? 4 : 6;
  const end = ADDRESS_AT + (family === 4 ? 4 : 16);
  if (bytes.length < end) return undefined;
  return { text: IpAddress.fromBytes(family, bytes, ADDRESS_AT).toString(), end };
}

function refuse(outcome: SocksRefusal, reply: number): SocksStep {
  return { kind: 'refuse', outcome, reply: socksReply(reply) };
}

/**
 * Returns a reply of SOCKS5, `VER REP RSV ATYP BND.ADDR BND.PORT`.
 *
 * @param bound the local end of the connection to the target; without it 0.0.0.0 and port 0
 */
export function socksReply(reply: number, bound?: HostPort): Buffer {
  const address = IpAddress.parse(bound?.host ?? '0.0.0.0');
  const { family } = address;
  const length = family === 4 ? 4 : 16;
  const bytes = Buffer.alloc(ADDRESS_AT + length + 2);
  bytes.set([SOCKS5, reply, 0, family === 4 ? AddressType.IPv4 : AddressType.IPv6]);
  address.writeTo(bytes, ADDRESS_AT);
  bytes.writeUInt16BE(bound?.port ?? 0, ADDRESS_AT + length);
  return bytes;
}

/** The values of REP (RFC 1928 section 6). */
export const SocksReply = {
  Succeeded: 0x00,
  GeneralFailure: 0x01,
  NetworkUnreachable: 0x03,
  HostUnreachable: 0x04,
  ConnectionRefused: 0x05,
  CommandNotSupported: 0x07,
  AddressTypeNotSupported: 0x08,
} as const;

/** The first byte of a client of SOCKS5. */
export const SOCKS5 = 0x05;
/** The first byte of a client of SOCKS4. */
export const SOCKS4 = 0x04;
/** The reply of SOCKS4 that the request is rejected or has failed. */
export const SOCKS4_REJECTED: Buffer = Buffer.of(0, 0x5b, 0, 0, 0, 0, 0, 0);

const Method = { None: 0x00, UserPassword: 0x02, NoneAcceptable: 0xff } as const;
const AddressType = { IPv4: 0x01, Name: 0x03, IPv6: 0x04 } as const;
const CONNECT = 0x01;
const CREDENTIALS_VERSION = 0x01;
const CREDENTIALS_RIGHT = 0x00;
const CREDENTIALS_WRONG = 0x01;
const ADDRESS_AT = 4;
const WAIT: SocksStep = { kind: 'wait' };
/** What a name may consist of. The zone has few names: most of these are not in it. */
const VISIBLE = /^[\x21-\x7e]+$/;
