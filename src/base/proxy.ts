/**
 * Chooses the HTTP proxy for an endpoint, by the option `proxy` of the dialling side or by the usual environment
 * variables. The library reads the environment only if the option is `proxyFromEnvironment`.
 * @module
 */
import { BlockList, isIP } from 'node:net';
import { ConfigError } from '../errors.ts';

/**
 * `http://[user:password@]host[:port]`, or a function that is asked before each connection and returns such a text,
 * or undefined for a direct connection. User and password are percent-encoded; the port is 80 if it is left out.
 */
export type ProxyOption = string | ProxyChoice;

/** Returns the URL of the proxy for an endpoint; undefined for a direct connection. */
export type ProxyChoice = (host: string, port: number) => string | undefined;

export interface HttpProxy {
  readonly host: string;
  readonly port: number;
  /** The value of the header field `Proxy-Authorization`; undefined without credentials. */
  readonly authorization: string | undefined;
}

/**
 * Returns the proxy that the option names for an endpoint, if any.
 *
 * @throws {ConfigError} if the option names a proxy that cannot be used.
 */
export function proxyFor(
  option: ProxyOption | undefined,
  host: string,
  port: number
): HttpProxy | undefined {
  const url = typeof option === 'function' ? option(host, port) : option;
  return url === undefined ? undefined : parseProxy(url);
}

/**
 * Reads the URL of a proxy. The credentials are those of HTTP's scheme Basic
 * ([RFC 7617](https://www.rfc-editor.org/rfc/rfc7617)), in UTF-8.
 *
 * @throws {ConfigError} if it is not a URL that can be used; the message does not contain the credentials.
 */
export function parseProxy(text: string): HttpProxy {
  if (typeof text !== 'string' || !URL.canParse(text)) throw unusable('it is not a URL');
  const url = new URL(text);
  if (url.protocol !== 'http:') throw unusable(`its scheme is ${url.protocol.slice(0, -1)}`);
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') {
    throw unusable('there is more behind the port');
  }
  const port = Number(url.port === '' ? 80 : url.port);
  if (port === 0) throw unusable('the port is 0');
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port,
    authorization: authorizationOf(url),
  };
}

function authorizationOf({ username, password }: URL): string | undefined {
  if (username === '' && password === '') return undefined;
  const [user, secret] = [decoded(username), decoded(password)];
  // RFC 7617 section 2.
  if (user.includes(':')) throw unusable('the user name contains a colon');
  if (/\p{Cc}/u.test(user + secret)) throw unusable('the credentials contain a control character');
  return `Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw unusable('the credentials are not percent-encoded UTF-8');
  }
}

/** The message does not show the text, which may contain a password. */
function unusable(why: string): ConfigError {
  return new ConfigError('proxy', `expected http://[user:password@]host:port, but ${why}`);
}

/**
 * Reads the environment of this process as [curl](https://curl.se/docs/manpage.html) does: `https_proxy`, else
 * `HTTPS_PROXY`, names the proxy, and `no_proxy`, else `NO_PROXY`, the endpoints that are connected to directly.
 * An entry of that list is a domain name, which stands for what is below it too, an IP address, a prefix such as
 * `10.0.0.0/8`, or `*` for all; a port may follow a name or an IPv4 address. Names are not looked up.
 *
 * It is a `ProxyChoice`: `MtlsTunnel.dial({ proxy: proxyFromEnvironment })`.
 */
export function proxyFromEnvironment(host: string, port: number): string | undefined {
  const proxy = variable('https_proxy');
  if (proxy === undefined || isExempt(host, port, variable('no_proxy') ?? '')) return undefined;
  return proxy.includes('://') ? proxy : `http://${proxy}`;
}

/** Returns the value of the first variable that is set and not empty. */
function variable(name: string): string | undefined {
  return process.env[name] || process.env[name.toUpperCase()] || undefined;
}

function isExempt(host: string, port: number, list: string): boolean {
  const name = host.toLowerCase().replace(/\.$/, '');
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => {
      if (entry === '*') return true;
      const address = entry.replace(/^\[|\]$/g, '');
      if (isIP(address.split('/')[0]!) !== 0) return contains(address, name);
      const [domain = '', only] = entry.split(':');
      if (only !== undefined && Number(only) !== port) return false;
      const suffix = domain.replace(/^\*?\./, '').replace(/\.$/, '');
      return suffix !== '' && (name === suffix || (!isIP(name) && name.endsWith(`.${suffix}`)));
    });
}

/** Returns whether an address is in a prefix, or is this address. */
function contains(prefix: string, address: string): boolean {
  const family = isIP(address);
  const [network = '', length] = prefix.split('/');
  if (family === 0 || family !== isIP(network)) return false;
  const bits = length === undefined ? (family === 4 ? 32 : 128) : Number(length);
  const type = family === 4 ? 'ipv4' : 'ipv6';
  const block = new BlockList();
  try {
    block.addSubnet(network, bits, type);
  } catch {
    return false; // The length is out of range.
  }
  return block.check(address, type);
}
