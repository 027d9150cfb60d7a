/**
 * Opens a connection to an endpoint through an HTTP proxy, by the method CONNECT
 * ([RFC 9110 section 9.3.6](https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6)). The proxy looks up
 * the endpoint's name, and then carries bytes. Its answer is input from a network:
 *
 * 1. The header sections of all answers, including interim ones, may have 16 KiB.
 * 2. The status line and the header fields must be valid HTTP/1 ([RFC 9112](https://www.rfc-editor.org/rfc/rfc9112)).
 * 3. The bytes behind the last header section belong to the connection.
 *
 * There is no time limit here. The caller has one for its whole attempt, and destroys the socket.
 * @module
 */
import { connect, isIPv6, type Socket } from 'node:net';
import { ApiMisuseError, ProxyError, type ProxyFault } from '../errors.ts';
import type { HostPort } from './host-port.ts';
import type { HttpProxy } from './proxy.ts';
import { reasonOf } from './socket-error.ts';

/** One of the two functions is called once, unless the socket is destroyed before. */
export interface ProxyOutcome {
  /** The connection is open. The socket is paused, and its only listener is one for `error`. */
  onOpen(socket: Socket): void;
  onFailed(error: ProxyError): void;
}

/**
 * Returns the socket at once; destroy it to give up.
 *
 * @throws {ApiMisuseError} if the host of the endpoint is neither a name nor an address without a zone.
 */
export function connectThrough(
  proxy: HttpProxy,
  endpoint: HostPort,
  outcome: ProxyOutcome
): Socket {
  const { host, port, authorization } = proxy;
  const request = requestOf(endpoint, authorization);
  const socket = connect({ host, port, noDelay: true });
  // An error may also occur after the answer.
  socket.on('error', () => {});
  let received: Buffer = Buffer.alloc(0);

  const finish = (): void => {
    socket.off('error', onError).off('end', onEnd).off('data', onData);
  };
  const fail = (fault: ProxyFault, reason: string, options?: ProxyErrorOptions): void => {
    finish();
    socket.destroy();
    outcome.onFailed(new ProxyError(fault, `proxy ${authority(proxy)}: ${reason}`, options));
  };
  const onError = (cause: NodeJS.ErrnoException): void => {
    fail('unreachable', reasonOf(cause), { cause });
  };
  const onEnd = (): void => fail('unreachable', 'it ended the connection without an answer');
  const onData = (piece: Buffer): void => {
    received = Buffer.concat([received, piece]);
    const answer = readAnswer(received);
    if (answer === undefined) return;
    if (typeof answer === 'string') {
      fail('protocol', answer);
      return;
    }
    const { status, schemes, end } = answer;
    if (status < 200 || status > 299) {
      const [fault, reason] = refusalOf(status, authorization !== undefined, schemes);
      fail(fault, reason, { status });
      return;
    }
    finish();
    socket.pause();
    if (end < received.length) socket.unshift(received.subarray(end));
    outcome.onOpen(socket);
  };
  socket.on('error', onError).on('end', onEnd).on('data', onData);
  socket.once('connect', () => socket.write(request));
  return socket;
}

type ProxyErrorOptions = ConstructorParameters<typeof ProxyError>[2];

interface Answer {
  readonly status: number;
  /** The schemes of the challenges for credentials. */
  readonly schemes: readonly string[];
  /** The offset of the first byte of the connection. */
  readonly end: number;
}

/** Returns the final answer, undefined if it is not complete, or a text that says what is wrong with it. */
function readAnswer(received: Buffer): Answer | string | undefined {
  for (let start = 0; ; ) {
    const at = received.indexOf(END_OF_SECTION, start, 'latin1');
    const end = at < 0 ? received.length : at + END_OF_SECTION.length;
    if (end > MAX_ANSWER_BYTES) return `its answer is longer than ${MAX_ANSWER_BYTES} bytes`;
    const text = received.toString('latin1', start, at < 0 ? end : at);
    if (!text.startsWith(HTTP_1.slice(0, text.length))) return 'its answer is not HTTP/1';
    if (at < 0) return undefined;
    const [first = '', ...fields] = text.split('\r\n');
    const status = Number(STATUS_LINE.exec(first)?.[1] ?? Number.NaN);
    if (!(status >= 100) || !fields.every((field) => FIELD.test(field))) {
      return 'its answer is not HTTP/1';
    }
    if (status >= 200) return { status, schemes: schemesOf(fields), end };
    // This is an interim answer (RFC 9110 section 15.2). Status 101 is not one, since no other protocol was asked for.
    if (status === 101) return 'it changes to another protocol';
    start = end;
  }
}

/** Returns the first scheme of each field `Proxy-Authenticate`, for messages. */
function schemesOf(fields: readonly string[]): string[] {
  return fields
    .map((field) => /^proxy-authenticate:[ \t]*([a-z0-9-]{1,32})(?=[ \t,]|$)/i.exec(field)?.[1])
    .filter((scheme) => scheme !== undefined);
}

function refusalOf(
  status: number,
  hasCredentials: boolean,
  schemes: readonly string[]
): [ProxyFault, string] {
  // Some proxies, such as tinyproxy, answer 401 to wrong credentials.
  if (status === 407 || (status === 401 && hasCredentials)) {
    const isForeign = schemes.length > 0 && !schemes.some((it) => it.toLowerCase() === 'basic');
    const hint = isForeign
      ? ` of the scheme ${schemes.join(' or ')}; only Basic is known here`
      : '';
    return hasCredentials
      ? ['credentials-refused', `it refuses the credentials (status ${status})${hint}`]
      : ['credentials-missing', `it asks for credentials (status ${status})${hint}`];
  }
  return status >= 500
    ? ['endpoint-unreachable', `it cannot reach the endpoint (status ${status})`]
    : ['refused', `it refuses the endpoint (status ${status})`];
}

function requestOf(endpoint: HostPort, authorization: string | undefined): string {
  const { host } = endpoint;
  // Any other text could end the line.
  if (!/^[0-9A-Za-z._~:-]+$/.test(host)) {
    throw new ApiMisuseError(`a proxy cannot be asked for the host ${JSON.stringify(host)}`);
  }
  const target = authority(endpoint);
  const fields = [`Host: ${target}`];
  if (authorization !== undefined) fields.push(`Proxy-Authorization: ${authorization}`);
  return `CONNECT ${target} HTTP/1.1\r\n${fields.join('\r\n')}\r\n\r\n`;
}

function authority({ host, port }: HostPort): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

const MAX_ANSWER_BYTES = 16_384;
const END_OF_SECTION = '\r\n\r\n';
const HTTP_1 = 'HTTP/1.';
/** RFC 9112 section 4. Some proxies omit the space before an empty reason. */
const STATUS_LINE: RegExp = /^HTTP\/1\.[01] (\d{3})(?: [\t\x20-\x7e\x80-\xff]*)?$/;
/** RFC 9110 section 5; folded lines are refused. */
const FIELD: RegExp = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*$/;
