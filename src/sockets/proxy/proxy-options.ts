/**
 * The options of a proxy, their defaults and their checks.
 * @module
 */
import * as v from 'valibot';
import { chosen, parseSchema, type Schema, wholeNumber } from '../../base/schema.ts';
import { type ProxyCredentials, randomPassword } from './proxy-credentials.ts';

export interface ProxyOptions {
  /**
   * What clients must give; false asks for nothing, so that everybody who can connect may use the proxy. Default: the
   * user name `presence` and a random password.
   *
   * The user name has 1 to 255 bytes, and no colon. The password has 12 to 255 bytes; it should be random, because
   * whoever can connect may try as many as he likes.
   */
  readonly auth?: ProxyCredentials | false | undefined;
  /**
   * How many connections there may be at once, 1 to 1,048,576; default 1,024. Further ones are closed at once. Up to 64
   * that have had a refusal, and end within 2 s, do not count.
   */
  readonly maxConnections?: number | undefined;
  /**
   * How many connections may not have sent a complete request yet, 1 to 1,048,576; default 64. The oldest of them is closed
   * for a new one.
   */
  readonly maxPending?: number | undefined;
}

/** The values of options that are left out. */
export const PROXY_DEFAULTS: Readonly<{ maxConnections: number; maxPending: number }> =
  Object.freeze({ maxConnections: 1024, maxPending: 64 });

export interface ResolvedProxyOptions {
  /** Undefined if nothing is asked for. */
  readonly credentials: ProxyCredentials | undefined;
  readonly maxConnections: number;
  readonly maxPending: number;
}

/** @throws {ConfigError} with the path of the option that is wrong. */
export function resolveProxyOptions(options: ProxyOptions): ResolvedProxyOptions {
  const { auth, maxConnections, maxPending } = parseSchema(ProxyOptionsSchema, options);
  const random = (): ProxyCredentials => ({ username: USERNAME, password: randomPassword() });
  return {
    credentials: auth === false ? undefined : (auth ?? random()),
    maxConnections,
    maxPending,
  };
}

const USERNAME = 'presence';
/** RFC 1929 has one byte for each length. */
const MAX_TEXT_BYTES = 255;
const MIN_PASSWORD_BYTES = 12;
const MAX_CONNECTIONS = 1_048_576;

/** The message of a fault does not have the text, which may be a password. */
function text(minBytes: number, allowed: RegExp, what: string): Schema<string> {
  return v.pipe(
    v.string(),
    v.check((value) => {
      const length = Buffer.byteLength(value);
      return length >= minBytes && length <= MAX_TEXT_BYTES && allowed.test(value);
    }, `must have ${minBytes} to ${MAX_TEXT_BYTES} bytes without ${what}`)
  ) as Schema<string>;
}

// RFC 7617 section 2 forbids control characters in both, and a colon in the user name.
const credentials = v.strictObject({
  username: text(1, /^[^\p{Cc}:]*$/u, 'colons and control characters'),
  password: text(MIN_PASSWORD_BYTES, /^\P{Cc}*$/u, 'control characters'),
});
/** The bounds of a proxy, for a schema that has others too. */
export const PROXY_BOUNDS_ENTRIES: v.ObjectEntries = {
  maxConnections: v.optional(wholeNumber(1, MAX_CONNECTIONS), PROXY_DEFAULTS.maxConnections),
  maxPending: v.optional(wholeNumber(1, MAX_CONNECTIONS), PROXY_DEFAULTS.maxPending),
};
const ProxyOptionsSchema = v.strictObject({
  auth: v.optional(
    chosen<ProxyCredentials | false>([v.literal(false), credentials], (input) =>
      input === false ? v.literal(false) : credentials
    )
  ),
  ...PROXY_BOUNDS_ENTRIES,
}) as unknown as Schema<Omit<ResolvedProxyOptions, 'credentials'> & Pick<ProxyOptions, 'auth'>>;
