/**
 * The data of SVCB and HTTPS records
 * ([RFC 9460 section 2](https://www.rfc-editor.org/rfc/rfc9460#section-2)): how a client connects to a service.
 *
 * ```
 * +----------+------------------+-------+--------+-----------+
 * | priority | target           | key   | length | value ... | each further parameter, by ascending key
 * +----------+------------------+-------+--------+-----------+
 *   2 bytes    not compressed     2       2
 * ```
 * @module
 */
import { ConfigError } from '../errors.ts';
import { integerWithin } from './limits.ts';
import { nameBytes } from './name.ts';

/** The data of an SVCB or HTTPS record. */
export interface SvcbData {
  /**
   * 0 is AliasMode: the clients ask for the records of `target` instead. Any other number, up to 65535, is ServiceMode:
   * the clients try the records with lower numbers first.
   */
  readonly priority: number;
  /**
   * Fully qualified, with the trailing dot. `.` stands for the owner in ServiceMode, and in AliasMode it says that
   * there is no service.
   */
  readonly target: string;
  /** The protocols that the service speaks, for example `h2`; absent in AliasMode. */
  readonly alpn?: readonly string[] | undefined;
  /** The port, if it is not that of the scheme; absent in AliasMode. */
  readonly port?: number | undefined;
}

/**
 * Checks everything but the target.
 *
 * @throws {ConfigError} below `path` if a number is out of its range, a protocol has no or too many bytes, or a record
 *   of AliasMode has parameters.
 */
export function checkSvcb(path: string, { priority, alpn, port }: SvcbData): void {
  integerWithin(`${path}.priority`, priority, 0, 65_535);
  if (port !== undefined) integerWithin(`${path}.port`, port, 1, 65_535);
  if (priority === 0 && (alpn !== undefined || port !== undefined)) {
    throw new ConfigError(path, 'a record with priority 0 (AliasMode) has no alpn and no port');
  }
  if (alpn !== undefined) integerWithin(`${path}.alpn.length`, alpn.length, 1, MAX_PROTOCOLS);
  alpn?.forEach((protocol, i) => {
    const length = Buffer.byteLength(protocol);
    if (length === 0 || length > MAX_PROTOCOL_LENGTH) {
      throw new ConfigError(
        `${path}.alpn[${i}]`,
        `the protocol has ${length} bytes, not 1 to ${MAX_PROTOCOL_LENGTH}`
      );
    }
  });
}

/** Encodes data that `checkSvcb` accepts. */
export function encodeSvcb({ priority, target, alpn, port }: SvcbData): Buffer {
  const parts = [uint16(priority), target === '.' ? ROOT : nameBytes(target)!];
  if (alpn !== undefined) {
    const protocols = alpn.map((protocol) => Buffer.from(protocol));
    parts.push(
      parameter(ALPN, Buffer.concat(protocols.flatMap((id) => [Buffer.of(id.length), id])))
    );
  }
  if (port !== undefined) parts.push(parameter(PORT, uint16(port)));
  return Buffer.concat(parts);
}

function parameter(key: number, value: Buffer): Buffer {
  return Buffer.concat([uint16(key), uint16(value.length), value]);
}

function uint16(value: number): Buffer {
  return Buffer.of(value >> 8, value & 0xff);
}

/** The root's name in a message. */
const ROOT: Buffer = Buffer.of(0);
/** Keys of parameters (RFC 9460 section 14.3.2). */
const ALPN = 1;
const PORT = 3;
/** Our choice. */
const MAX_PROTOCOLS = 16;
/** One byte has the length (RFC 7301 section 3.1). */
const MAX_PROTOCOL_LENGTH = 255;
